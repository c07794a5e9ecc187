//! What is done for a while, and what it came to.

use serde::Serialize;

use super::world::PORTS;
use crate::traffic::{Kind, Outcome};

pub(super) const GIB: f64 = (1_u64 << 30) as f64;

/// What is to be done.
#[derive(Clone, Copy, Debug)]
pub(super) struct Order {
    pub(super) kind: Kind,
    /// Connections at once, of all pairs together.
    pub(super) streams: usize,
    pub(super) seconds: f64,
    pub(super) rate: Option<f64>,
    pub(super) count: Option<u64>,
    pub(super) request: u32,
    pub(super) reply: u32,
    /// Ports of a server that are used in turn.
    pub(super) ports: u16,
    /// Pairs that take part; none for all.
    pub(super) pairs: Option<usize>,
}

impl Order {
    const fn new(kind: Kind, streams: usize) -> Self {
        let (seconds, rate, count, pairs) = (1.0, None, None, None);
        Self { kind, streams, seconds, rate, count, request: 128, reply: 1024, ports: PORTS, pairs }
    }

    pub(super) const fn bulk(streams: usize) -> Self {
        Self::new(Kind::Bulk, streams)
    }

    pub(super) const fn connect(streams: usize) -> Self {
        Self::new(Kind::Connect, streams)
    }

    pub(super) const fn ask(streams: usize) -> Self {
        Self::new(Kind::Ask, streams)
    }
}

/// What it came to, and the seconds on CPUs that it took.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Slice {
    pub(super) outcome: Outcome,
    /// Of the agent on the client's node, and of that on the server's.
    pub(super) agents: [f64; 2],
    /// Of clients and servers.
    pub(super) load: f64,
}

impl Slice {
    /// Of all clients, with the times before and after. The longest of the times and percentiles counts.
    pub(super) fn new(outcomes: &[Outcome], before: [f64; 3], after: [f64; 3]) -> Self {
        let mut whole = Outcome::default();
        for one in outcomes {
            whole.seconds = whole.seconds.max(one.seconds);
            whole.bytes += one.bytes;
            whole.count += one.count;
            whole.p50 = whole.p50.max(one.p50);
            whole.p99 = whole.p99.max(one.p99);
            whole.longest = whole.longest.max(one.longest);
            whole.stalls += one.stalls;
        }
        let ([a, b, c], [d, e, f]) = (before, after);
        Self { outcome: whole, agents: [d - a, e - b], load: f - c }
    }

    /// Of both agents.
    pub(super) fn mesh(&self) -> f64 {
        self.agents.iter().sum()
    }

    /// Of agents and load.
    pub(super) fn cpu(&self) -> f64 {
        self.mesh() + self.load
    }

    pub(super) fn gigabits(&self) -> f64 {
        self.outcome.bytes as f64 * 8.0 / 1e9 / self.outcome.seconds.max(f64::MIN_POSITIVE)
    }

    pub(super) fn rate(&self) -> f64 {
        self.outcome.count as f64 / self.outcome.seconds.max(f64::MIN_POSITIVE)
    }

    /// So many GiB.
    pub(super) fn gibs(&self) -> f64 {
        self.outcome.bytes as f64 / GIB
    }

    /// So many thousand exchanges.
    pub(super) fn thousands(&self) -> f64 {
        self.outcome.count as f64 / 1e3
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_are_added_up_and_the_slowest_tells_the_time() {
        let one = Outcome { seconds: 1.0, bytes: 1 << 30, count: 1000, p50: 5.0, ..Outcome::default() };
        let other = Outcome { seconds: 2.0, p50: 4.0, ..one.clone() };
        let slice = Slice::new(&[one, other], [1.0, 2.0, 3.0], [1.5, 3.0, 4.0]);
        assert_eq!(
            (slice.gibs(), slice.thousands(), slice.rate(), slice.outcome.p50),
            (2.0, 2.0, 1000.0, 5.0)
        );
        assert_eq!((slice.mesh(), slice.cpu()), (1.5, 2.5));
        assert!((slice.gigabits() - 8.59).abs() < 0.01, "{}", slice.gigabits());
    }
}
