//! Keeps one identity's certificate: fetches it, renews it at half of its lifetime, retries what fails.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use mesh::Identity;
use tokio::sync::watch;
use tracing::{debug, warn};

use super::manager::Shared;
use super::{CertificateError, State, WorkloadCertificate, request};

/// The first wait after a failure; each further one is twice as long, up to [`LONGEST_BACKOFF`].
const FIRST_BACKOFF: Duration = Duration::from_secs(1);
const LONGEST_BACKOFF: Duration = Duration::from_secs(150);
/// How much of a wait is random, in both directions.
const JITTER: f64 = 0.2;
/// The longest sleep without a look at the clock, which may be set or stand still meanwhile.
const LONGEST_SLEEP: Duration = Duration::from_secs(60);
/// The shortest time between two fetches that both succeeded, however short the certificates live.
const SHORTEST_INTERVAL: Duration = Duration::from_millis(500);

/// Runs until it is aborted.
pub(super) async fn keep(shared: Arc<Shared>, identity: Identity, state: watch::Sender<State>) {
    let mut backoff = FIRST_BACKOFF;
    loop {
        match attempt(&shared, &identity).await {
            Ok(certificate) => {
                debug!(%identity, "certificate issued");
                backoff = FIRST_BACKOFF;
                let due = due(&certificate);
                state.send_replace(State::Available(certificate));
                tokio::time::sleep(SHORTEST_INTERVAL).await;
                sleep_until(due).await;
            }
            Err(error) => {
                warn!(%identity, %error, retry_in = ?backoff, "no certificate");
                state.send_if_modified(|state| replace_by_error(state, error));
                tokio::time::sleep(jittered(backoff)).await;
                backoff = LONGEST_BACKOFF.min(backoff * 2);
            }
        }
    }
}

async fn attempt(shared: &Shared, identity: &Identity) -> Result<Arc<WorkloadCertificate>, CertificateError> {
    let waited = shared.config.fetch_timeout;
    let fetch = async {
        // The semaphore is never closed; if it were, the fetch would merely not be counted.
        let _turn = shared.fetches.acquire().await;
        let fetch = request::fetch(&*shared.authority, identity, shared.config.ttl);
        tokio::time::timeout(waited, fetch).await
    };
    match fetch.await {
        Ok(outcome) => outcome,
        Err(_) => Err(CertificateError::TimedOut { identity: identity.clone(), waited }),
    }
}

/// A failure is told unless there is a certificate that is still valid.
fn replace_by_error(state: &mut State, error: CertificateError) -> bool {
    if matches!(state, State::Available(certificate) if !certificate.is_expired(SystemTime::now())) {
        return false;
    }
    *state = State::Unavailable(error);
    true
}

/// Half of the lifetime, spread so that certificates issued together are not renewed together.
fn due(certificate: &WorkloadCertificate) -> SystemTime {
    let now = SystemTime::now();
    let left = certificate.not_after.duration_since(now).unwrap_or_default();
    now + jittered(left / 2)
}

async fn sleep_until(due: SystemTime) {
    while let Ok(left) = due.duration_since(SystemTime::now()) {
        if left.is_zero() {
            return;
        }
        tokio::time::sleep(left.min(LONGEST_SLEEP)).await;
    }
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
}
