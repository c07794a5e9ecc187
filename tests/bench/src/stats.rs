//! Medians and how far the samples spread around them.

use std::fmt;
use std::time::Duration;

/// The middle half of some samples.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Spread {
    pub(crate) low: f64,
    pub(crate) median: f64,
    pub(crate) high: f64,
}

impl Spread {
    /// Of samples in any order; of none it is zero.
    pub(crate) fn of(mut samples: Vec<f64>) -> Self {
        samples.sort_by(f64::total_cmp);
        let at = |share| quantile(&samples, share);
        Self { low: at(0.25), median: at(0.5), high: at(0.75) }
    }
}

impl fmt::Display for Spread {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.3} [{:.3}..{:.3}]", self.median, self.low, self.high)
    }
}

/// The sample below which `share` of all lie; `sorted` is in order.
pub(crate) fn quantile(sorted: &[f64], share: f64) -> f64 {
    let last = sorted.len().saturating_sub(1) as f64;
    sorted.get((last * share).round() as usize).copied().unwrap_or_default()
}

/// Half and nearly all of some times: (p50, p99), in milliseconds.
pub(crate) fn percentiles(times: &[Duration]) -> (f64, f64) {
    let mut millis: Vec<f64> = times.iter().map(|time| time.as_secs_f64() * 1e3).collect();
    millis.sort_by(f64::total_cmp);
    (quantile(&millis, 0.5), quantile(&millis, 0.99))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_outlier_moves_no_median() {
        let spread = Spread::of(vec![1.0, 0.9, 55.0, 1.1, 1.0]);
        assert_eq!(spread, Spread { low: 1.0, median: 1.0, high: 1.1 });
        assert_eq!(Spread::of(Vec::new()).median, 0.0);
    }

    #[test]
    fn percentiles_are_in_milliseconds() {
        let times: Vec<Duration> = (0..=100).map(Duration::from_millis).collect();
        assert_eq!(percentiles(&times), (50.0, 99.0));
    }
}
