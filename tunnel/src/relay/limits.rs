//! When a relay has gone on for too long without anything moving.
//!
//! A dead peer is noticed by the kernel (keepalive) or by the tunnel (PING). What is left are peers that are alive and do
//! nothing: that say nothing, that have ended their half and wait for ever for the other one, that never read. For each
//! there is a limit. Bytes are not timed as they pass; a relay is looked at a few times within its shortest limit, so that
//! it is ended no earlier than the limit says and a quarter of the shortest one later at most.

use std::future::pending;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::time::{Instant, sleep};

use super::RelayError;
use crate::config::Timeouts;

/// How often a relay is looked at within its shortest limit.
const LOOKS: u32 = 4;
/// How often at most, whatever the limits.
const SHORTEST: Duration = Duration::from_millis(20);

/// Completes when one of the two directions, or both, have outlived one of the `limits`.
pub(super) async fn exceeded(limits: &Timeouts, lanes: &[Lane; 2]) -> RelayError {
    let shortest = [limits.idle, limits.half_close, limits.stalled].into_iter().flatten().min();
    let Some(shortest) = shortest else { return pending().await };
    let mut watches = [Watch::new(), Watch::new()];
    loop {
        sleep((shortest / LOOKS).max(SHORTEST)).await;
        watches.iter_mut().zip(lanes).for_each(|(watch, lane)| watch.look(lane));
        if let Some(error) = judge(limits, &watches) {
            return error;
        }
    }
}

fn judge(limits: &Timeouts, [one, other]: &[Watch; 2]) -> Option<RelayError> {
    let still = one.still().min(other.still());
    let half_closed = one.done != other.done;
    let stalled = one.blocked().max(other.blocked());
    let beyond = |limit: Option<Duration>, time: Duration| limit.filter(|limit| time >= *limit);
    beyond(limits.stalled, stalled)
        .map(RelayError::Stalled)
        .or_else(|| beyond(limits.half_close.filter(|_| half_closed), still).map(RelayError::HalfClosed))
        .or_else(|| beyond(limits.idle, still).map(RelayError::Idle))
}

/// What one direction is doing, noted by it as it goes.
#[derive(Debug, Default)]
pub(crate) struct Lane {
    /// Counts what got through: writes, and the end.
    moved: AtomicU64,
    /// It has bytes that the receiver does not take.
    blocked: AtomicBool,
    done: AtomicBool,
}

impl Lane {
    /// Some bytes were taken.
    pub(super) fn moved(&self) {
        // Nobody else writes it.
        self.moved.store(self.moved.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
        self.blocked.store(false, Ordering::Relaxed);
    }

    /// There are bytes that have to wait for the receiver.
    pub(super) fn blocked(&self) {
        self.blocked.store(true, Ordering::Relaxed);
    }

    /// The end was passed on.
    pub(super) fn done(&self) {
        self.moved();
        self.done.store(true, Ordering::Relaxed);
    }
}

/// What was seen of a direction.
struct Watch {
    moved: u64,
    done: bool,
    /// When it was first seen as it is.
    since: Instant,
    /// When it was first seen blocked with nothing moving since.
    blocked_since: Option<Instant>,
}

impl Watch {
    fn new() -> Self {
        Self { moved: 0, done: false, since: Instant::now(), blocked_since: None }
    }

    fn look(&mut self, lane: &Lane) {
        let moved = lane.moved.load(Ordering::Relaxed);
        if moved != self.moved {
            (self.moved, self.since, self.blocked_since) = (moved, Instant::now(), None);
        }
        self.done = lane.done.load(Ordering::Relaxed);
        match lane.blocked.load(Ordering::Relaxed) {
            true => self.blocked_since = self.blocked_since.or_else(|| Some(Instant::now())),
            false => self.blocked_since = None,
        }
    }

    fn still(&self) -> Duration {
        self.since.elapsed()
    }

    fn blocked(&self) -> Duration {
        self.blocked_since.map(|since| since.elapsed()).unwrap_or_default()
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::timeout;

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    fn all() -> Timeouts {
        Timeouts {
            idle: Some(100 * SECOND),
            half_close: Some(40 * SECOND),
            stalled: Some(20 * SECOND),
            ..Timeouts::default()
        }
    }

    /// When and how a relay ends in which `act` is called once a second.
    async fn end(limits: Timeouts, mut act: impl FnMut(u64, &[Lane; 2])) -> (u64, Option<RelayError>) {
        let lanes = [Lane::default(), Lane::default()];
        let began = Instant::now();
        let acting = async {
            for second in 0.. {
                act(second, &lanes);
                sleep(SECOND).await;
            }
        };
        let watched = async {
            tokio::select! {
                error = exceeded(&limits, &lanes) => error,
                () = acting => unreachable!("it acts for ever"),
            }
        };
        let ended = timeout(1000 * SECOND, watched).await.ok();
        (began.elapsed().as_secs(), ended)
    }

    #[tokio::test(start_paused = true)]
    async fn what_does_nothing_at_all_ends_as_idle() {
        let (after, error) = end(all(), |_, _| {}).await;
        assert!(matches!(error, Some(RelayError::Idle(_))), "{error:?}");
        assert!((100..=105).contains(&after), "{after}");
    }

    #[tokio::test(start_paused = true)]
    async fn bytes_in_one_direction_keep_both_alive() {
        let (_, error) = end(all(), |second, lanes| {
            if second % 30 == 0 {
                lanes[1].moved();
            }
        })
        .await;
        assert!(error.is_none(), "{error:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_half_that_waits_for_ever_ends_and_one_that_gets_its_answer_does_not() {
        let (after, error) = end(all(), |second, lanes| {
            if second == 10 {
                lanes[0].done();
            }
        })
        .await;
        assert!(matches!(error, Some(RelayError::HalfClosed(_))), "{error:?}");
        assert!((50..=56).contains(&after), "{after}");
        let (_, error) = end(all(), |second, lanes| {
            if second == 10 {
                lanes[0].done();
            }
            if second % 30 == 0 {
                lanes[1].moved();
            }
        })
        .await;
        assert!(error.is_none(), "{error:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn a_receiver_that_takes_nothing_is_given_up_though_the_other_direction_moves() {
        let (after, error) = end(all(), |second, lanes| {
            lanes[1].moved();
            match second {
                0..50 => lanes[0].moved(),
                _ => lanes[0].blocked(),
            }
        })
        .await;
        assert!(matches!(error, Some(RelayError::Stalled(_))), "{error:?}");
        assert!((69..=76).contains(&after), "{after}");
        // Slow is not stalled.
        let (_, error) = end(all(), |second, lanes| {
            if second % 15 == 0 {
                lanes[0].moved();
            }
            lanes[0].blocked();
        })
        .await;
        assert!(error.is_none(), "{error:?}");
    }

    #[tokio::test(start_paused = true)]
    async fn without_limits_nothing_ends() {
        let none = Timeouts { idle: None, half_close: None, stalled: None, ..Timeouts::default() };
        let lanes = [Lane::default(), Lane::default()];
        let ended = timeout(1000 * SECOND, exceeded(&none, &lanes)).await;
        assert!(ended.is_err());
    }
}
