//! How long it takes until the next stream.

use std::time::Duration;

/// The wait after a close that was to be expected, and the first after a failure.
const FIRST: Duration = Duration::from_millis(10);
/// The longest; each is twice the one before.
const LONGEST: Duration = Duration::from_secs(15);
/// How much of a wait is random, in both directions, so that agents do not come back all at once.
const JITTER: f64 = 0.2;

/// The waits between streams.
#[derive(Debug)]
pub(super) struct Backoff {
    next: Duration,
}

impl Backoff {
    pub(super) fn new() -> Self {
        Self { next: FIRST }
    }

    /// The wait after a stream that ended. `fruitful`: everything that it had to bring came, so what went wrong before has
    /// passed. `expected`: its end is no sign of trouble.
    pub(super) fn after(&mut self, fruitful: bool, expected: bool) -> Duration {
        if fruitful {
            self.next = FIRST;
        }
        let wait = self.next;
        if !(fruitful && expected) {
            self.next = LONGEST.min(wait * 2);
        }
        wait.mul_f64(rand::random_range(1.0 - JITTER..1.0 + JITTER))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn about(wait: Duration, expected: Duration) -> bool {
        (expected.mul_f64(0.8)..=expected.mul_f64(1.2)).contains(&wait)
    }

    #[test]
    fn doubles_up_to_15_s_and_begins_anew() {
        let mut backoff = Backoff::new();
        for expected in [10, 20, 40, 80, 160, 320, 640, 1280, 2560, 5120, 10_240, 15_000, 15_000] {
            let wait = backoff.after(false, false);
            assert!(about(wait, Duration::from_millis(expected)), "{wait:?} for {expected}");
        }
        assert!(about(backoff.after(false, true), LONGEST), "it brought nothing, however orderly it ended");
        assert!(about(backoff.after(true, true), FIRST));
        assert!(about(backoff.after(true, true), FIRST), "a close that was to be expected costs nothing");
        assert!(about(backoff.after(true, false), FIRST));
        assert!(about(backoff.after(false, false), FIRST * 2));
    }
}
