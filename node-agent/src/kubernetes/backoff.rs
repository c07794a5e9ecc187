//! Waits between attempts: each twice as long as the one before, up to a limit, and none of them exact.

use std::time::Duration;

use rand::Rng as _;

/// The waits of one thing that is tried again and again.
#[derive(Clone, Debug)]
pub(super) struct Backoff {
    first: Duration,
    longest: Duration,
    next: Duration,
}

impl Backoff {
    pub(super) const fn new(first: Duration, longest: Duration) -> Self {
        Self { first, longest, next: first }
    }

    /// It went well.
    pub(super) fn reset(&mut self) {
        self.next = self.first;
    }

    /// How long to wait now.
    pub(super) fn wait(&mut self) -> Duration {
        let wait = self.next;
        self.next = (wait * 2).min(self.longest);
        jittered(wait)
    }
}

/// Half as long, up to half as long again: those of many nodes must not come at once.
pub(super) fn jittered(wait: Duration) -> Duration {
    wait.mul_f64(rand::rng().random_range(0.5..1.5))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn waits_double_up_to_the_limit_and_begin_anew() {
        let mut backoff = Backoff::new(Duration::from_secs(1), Duration::from_secs(5));
        let near =
            |wait: Duration, seconds: f64| (seconds * 0.5..seconds * 1.5).contains(&wait.as_secs_f64());
        for expected in [1.0, 2.0, 4.0, 5.0, 5.0] {
            assert!(near(backoff.wait(), expected), "{expected}");
        }
        backoff.reset();
        assert!(near(backoff.wait(), 1.0));
    }
}
