//! Which connections have a span.
//!
//! Invariant: one trace is decided alike on every node that has the same share, whatever makes its ids.

/// Decides by what was decided before, and by the trace.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Sampler {
    follows_parent: bool,
    /// Traces are taken whose lower 63 bits are less.
    below: u64,
}

impl Sampler {
    /// One that takes a `ratio` of all traces, from 0 to 1; and where it `follows_parent`, of those alone that begin here.
    pub(crate) fn new(follows_parent: bool, ratio: f64) -> Self {
        // What is too large for the type becomes its largest value.
        let below = (ratio * (1_u64 << 63) as f64) as u64;
        Self { follows_parent, below }
    }

    /// Whether a connection of this trace has a span.
    pub(crate) fn samples(self, trace: u128, parent: Option<bool>) -> bool {
        match parent.filter(|_| self.follows_parent) {
            Some(parent) => parent,
            // The lower half of the id, without its lowest bit: as OpenTelemetry's libraries do.
            None => (trace as u64 >> 1) < self.below,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_parent_is_followed_by_those_that_follow() {
        for (ratio, own) in [(0.0, false), (1.0, true)] {
            for parent in [true, false] {
                assert_eq!(Sampler::new(true, ratio).samples(u128::MAX, Some(parent)), parent);
                assert_eq!(Sampler::new(false, ratio).samples(u128::MAX, Some(parent)), own);
            }
            for trace in [1, u128::from(u64::MAX), u128::MAX] {
                assert_eq!(Sampler::new(true, ratio).samples(trace, None), own, "{trace}");
            }
        }
    }

    #[test]
    fn a_share_goes_by_the_lower_half_of_the_trace() {
        let quarter = Sampler::new(true, 0.25);
        let just = u128::from(1_u64 << 62);
        assert!(quarter.samples(just - 1, None) && !quarter.samples(just, None));
        assert!(quarter.samples((7 << 64) | 1, None), "the upper half does not count");
    }
}
