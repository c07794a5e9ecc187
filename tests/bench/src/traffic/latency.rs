//! How long each exchange took.

use std::time::Duration;

use super::Outcome;
use crate::stats::quantile;

/// What counts as a stall: what the kernel's shortest repetition and its timers make of a segment that nobody answers.
const STALL: Duration = Duration::from_millis(8);

/// All that were seen.
#[derive(Debug, Default)]
pub(super) struct Latencies {
    micros: Vec<f64>,
    stalls: u64,
}

impl Latencies {
    pub(super) fn add(&mut self, took: Duration) {
        self.micros.push(took.as_secs_f64() * 1e6);
        self.stalls += u64::from(took >= STALL);
    }

    pub(super) fn count(&self) -> u64 {
        self.micros.len() as u64
    }

    /// What is told of them.
    pub(super) fn outcome(mut self, seconds: f64) -> Outcome {
        self.micros.sort_by(f64::total_cmp);
        let count = self.count();
        let [p50, p99, longest] = [0.5, 0.99, 1.0].map(|share| quantile(&self.micros, share));
        Outcome { seconds, bytes: 0, count, p50, p99, longest, stalls: self.stalls }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stalls_are_those_of_eight_milliseconds_and_more() {
        let mut latencies = Latencies::default();
        (1..=10).for_each(|millis| latencies.add(Duration::from_millis(millis)));
        let outcome = latencies.outcome(1.0);
        assert_eq!((outcome.count, outcome.stalls, outcome.longest), (10, 3, 10_000.0));
    }
}
