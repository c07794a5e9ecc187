//! Keeps one identity's certificate: fetches it, renews it at half of its lifetime, retries what fails.
//!
//! Invariants: whatever the clock does, a certificate is renewed no later than half of its lifetime after it came, and no
//! later than half of its lifetime as the clock has it; one that the clock, set back, makes early is replaced; a certificate
//! that is still valid stays while its renewal fails; one that no root of the newest answer vouches for is replaced at once.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mesh::Identity;
use tokio::sync::watch;
use tokio::time::{Instant, sleep_until, timeout};
use tracing::{debug, info, warn};

use super::manager::Shared;
use super::trust::Bundle;
use super::turns::Priority;
use super::{CertificateError, State, WorkloadCertificate, answer, request};
use crate::clock::Clock;

/// The first wait after a failure; each further one is twice as long, up to [`LONGEST_BACKOFF`].
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const LONGEST_BACKOFF: Duration = Duration::from_secs(150);
/// How much of a wait is random, in both directions.
const JITTER: f64 = 0.2;
/// The longest sleep without a look at the clock, which may be set or stand still meanwhile.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);
/// The shortest time between two fetches that both succeeded, however short the certificates live.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(500);
/// The shortest time between a certificate and its replacement for the sake of roots: authorities that do not agree yet
/// would have it replaced for ever.
const SETTLING: Duration = Duration::from_secs(2);

/// The task of one identity.
pub(super) struct Keeper {
    pub(super) shared: Arc<Shared>,
    pub(super) identity: Identity,
    pub(super) state: watch::Sender<State>,
    /// How many wait for it.
    pub(super) waiters: watch::Receiver<usize>,
    /// What is trusted.
    pub(super) trust: watch::Receiver<Arc<Bundle>>,
    /// Changes when all certificates are to be renewed.
    pub(super) renew: watch::Receiver<u64>,
    /// Since when a renewal is due that has not come, for the metrics.
    pub(super) due: watch::Sender<Option<SystemTime>>,
}

/// When the next fetch begins: by the clock, and by the time that passes.
#[derive(Clone, Copy, Debug)]
struct Due {
    clock: SystemTime,
    passed: Instant,
}

impl Due {
    fn after(wait: Duration, clock: &Clock) -> Self {
        Self { clock: clock.now() + wait, passed: Instant::now() + wait }
    }

    fn is_now(self, clock: &Clock) -> bool {
        clock.now() >= self.clock || Instant::now() >= self.passed
    }

    /// When to look again.
    fn look(self, clock: &Clock) -> Instant {
        let by_clock = self.clock.duration_since(clock.now()).unwrap_or_default();
        self.passed.min(Instant::now() + by_clock.min(LONGEST_SLEEP))
    }

    fn no_later_than(&mut self, wait: Duration, clock: &Clock) {
        let other = Self::after(wait, clock);
        *self = Self { clock: self.clock.min(other.clock), passed: self.passed.min(other.passed) };
    }
}

impl Keeper {
    /// Runs until it is aborted.
    pub(super) async fn run(mut self) {
        let mut backoff = FIRST_BACKOFF;
        loop {
            let outcome = self.attempt().await;
            self.shared.metrics.fetched(outcome.as_ref().err());
            match outcome {
                Ok(certificate) => {
                    debug!(identity = %self.identity, "certificate issued");
                    backoff = FIRST_BACKOFF;
                    self.take(certificate);
                    self.rest().await;
                }
                Err(error) => {
                    warn!(identity = %self.identity, %error, retry_in = ?backoff, "no certificate");
                    let now = self.shared.clock.now();
                    self.state.send_if_modified(|state| replace_by_error(state, error, now));
                    self.pause(jittered(backoff)).await;
                    backoff = LONGEST_BACKOFF.min(backoff * 2);
                }
            }
        }
    }

    /// Waits for a turn, which comes sooner once somebody waits for the certificate, and asks the authority.
    async fn attempt(&mut self) -> Result<WorkloadCertificate, CertificateError> {
        let mut place = self.shared.turns.enter(match self.is_valid() {
            true => Priority::Renewal,
            false => Priority::WarmUp,
        });
        let _turn = loop {
            if *self.waiters.borrow_and_update() > 0 {
                place.raise(Priority::Connection);
            }
            tokio::select! {
                biased;
                turn = place.turn() => break turn,
                Ok(()) = self.waiters.changed() => {}
            }
        };
        let waited = self.shared.config.fetch_timeout;
        let Shared { authority, config, clock, .. } = &*self.shared;
        let fetch = request::fetch(&**authority, &self.identity, config.ttl, clock);
        match timeout(waited, fetch).await {
            Ok(outcome) => outcome,
            Err(_) => Err(CertificateError::TimedOut { identity: self.identity.clone(), waited }),
        }
    }

    fn is_valid(&self) -> bool {
        is_valid(&self.state.borrow(), self.shared.clock.now())
    }

    /// Hands a new certificate out, with all roots that are trusted.
    fn take(&mut self, certificate: WorkloadCertificate) {
        let bundle = self.shared.trust.learn(&certificate.roots);
        self.trust.mark_unchanged();
        self.renew.mark_unchanged();
        let certificate = request::with_roots(&certificate, &bundle.trusted);
        self.state.send_replace(State::Available(certificate));
    }

    /// Waits until the certificate is to be renewed.
    async fn rest(&mut self) {
        let (began, clock) = (Instant::now(), self.shared.clock.clone());
        let (left, early) = match &*self.state.borrow() {
            State::Available(certificate) => {
                let left = certificate.not_after.duration_since(clock.now()).unwrap_or_default();
                (left, certificate.is_early(clock.now()))
            }
            State::Pending | State::Unavailable(_) => (Duration::ZERO, true),
        };
        let mut due = Due::after(jittered(left / 2).max(SHORTEST_INTERVAL), &clock);
        // Between the two receivers' last look and now something may have changed.
        self.trust.mark_changed();
        loop {
            self.due.send_replace(Some(due.clock));
            tokio::select! {
                () = sleep_until(due.look(&clock)) => {}
                // Somebody has found it expired: the clock was set past its end.
                Ok(()) = self.waiters.changed() => {}
                Ok(()) = self.trust.changed() => if self.adopt() {
                    due.no_later_than(SETTLING.saturating_sub(began.elapsed()), &clock);
                },
                Ok(()) = self.renew.changed() => {
                    due.no_later_than(self.shared.config.spread.mul_f64(rand::random()), &clock);
                }
            }
            if due.is_now(&clock) || (!early && self.has_become_early()) {
                return;
            }
        }
    }

    /// Whether the clock was set back to before a certificate's time, in which no peer with the same clock takes it. One that was
    /// early when it came is of an authority whose clock is ahead; another would be no better.
    fn has_become_early(&self) -> bool {
        let now = self.shared.clock.now();
        let early =
            matches!(&*self.state.borrow(), State::Available(certificate) if certificate.is_early(now));
        if early {
            info!(identity = %self.identity, "the clock was set back to before the certificate's time; it is renewed");
        }
        early
    }

    /// Waits before the next attempt; less long if somebody waits for its outcome, but never shorter than the first backoff.
    async fn pause(&mut self, wait: Duration) {
        let clock = self.shared.clock.clone();
        let due = Due::after(wait, &clock);
        let hurried = Instant::now() + jittered(FIRST_BACKOFF).min(wait);
        loop {
            let in_need = *self.waiters.borrow_and_update() > 0 && !self.is_valid();
            let look = if in_need { hurried } else { due.look(&clock) };
            tokio::select! {
                () = sleep_until(look) => if in_need || due.is_now(&clock) { return },
                Ok(()) = self.waiters.changed() => {}
                Ok(()) = self.trust.changed() => { self.adopt(); }
            }
        }
    }

    /// Hands the certificate out anew if other roots are trusted now. Tells whether it needs to be replaced.
    fn adopt(&mut self) -> bool {
        let bundle = Arc::clone(&self.trust.borrow_and_update());
        let certificate = match &*self.state.borrow() {
            State::Available(certificate) => Arc::clone(certificate),
            State::Pending | State::Unavailable(_) => return false,
        };
        if certificate.roots != bundle.trusted {
            let renewed = request::with_roots(&certificate, &bundle.trusted);
            self.state.send_replace(State::Available(renewed));
        }
        let as_of = self.shared.clock.now().max(certificate.not_before).min(certificate.not_after);
        let left = answer::leads_to(&certificate.chain, &bundle.current, as_of).is_err();
        if left {
            info!(identity = %self.identity, "the root of the certificate has left the mesh; it is renewed");
        }
        left
    }
}

fn is_valid(state: &State, now: SystemTime) -> bool {
    matches!(state, State::Available(certificate) if !certificate.is_expired(now))
}

/// A failure is told unless there is a certificate that is still valid.
fn replace_by_error(state: &mut State, error: CertificateError, now: SystemTime) -> bool {
    if is_valid(state, now) {
        return false;
    }
    *state = State::Unavailable(error);
    true
}

fn jittered(wait: Duration) -> Duration {
    wait.mul_f64(rand::random_range(1.0 - JITTER..1.0 + JITTER))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn jitter_stays_within_a_fifth() {
        for _ in 0..1000 {
            let wait = jittered(Duration::from_secs(10));
            assert!((Duration::from_secs(8)..=Duration::from_secs(12)).contains(&wait), "{wait:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_clock_that_is_set_does_not_put_a_renewal_off() {
        let (hour, clock) = (Duration::from_secs(3600), Clock::default());
        let mut due = Due::after(hour, &clock);
        assert!(!due.is_now(&clock) && due.look(&clock) <= Instant::now() + LONGEST_SLEEP);
        // Set back by a day: the time that passes counts.
        due.clock += 24 * hour;
        assert!(due.look(&clock) <= Instant::now() + LONGEST_SLEEP);
        tokio::time::advance(hour).await;
        assert!(due.is_now(&clock));
        // Set forward, or slept through: the clock counts, within one look.
        let mut due = Due::after(hour, &clock);
        due.clock -= 2 * hour;
        assert!(due.is_now(&clock) && due.look(&clock) <= Instant::now());
    }

    #[tokio::test(start_paused = true)]
    async fn what_hurries_never_delays() {
        let clock = Clock::default();
        let mut due = Due::after(Duration::from_secs(10), &clock);
        let before = due;
        due.no_later_than(Duration::from_secs(20), &clock);
        assert_eq!((due.clock, due.passed), (before.clock, before.passed));
        due.no_later_than(Duration::ZERO, &clock);
        assert!(due.is_now(&clock));
    }
}
