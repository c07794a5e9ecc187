//! What is compared, with and without the mesh: the rows of the table.

use serde::Serialize;

use super::slice::{Order, Slice};
use super::world::{COLD, STRANGERS, Way};

/// A row.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Case {
    Bulk1,
    Bulk8,
    Bulk64,
    /// New connections, 16 at once.
    Connect,
    /// New connections, each the first one to its peer.
    Cold,
    /// 1,000 requests a second on 16 connections.
    Ask,
}

/// In which a figure is better if it is smaller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Better {
    More,
    Less,
}

pub(super) const CASES: [Case; 6] =
    [Case::Bulk1, Case::Bulk8, Case::Bulk64, Case::Connect, Case::Cold, Case::Ask];

impl Case {
    /// As it is called in the floor file.
    pub(super) const fn name(self) -> &'static str {
        match self {
            Self::Bulk1 => "bulk-1",
            Self::Bulk8 => "bulk-8",
            Self::Bulk64 => "bulk-64",
            Self::Connect => "connect",
            Self::Cold => "cold",
            Self::Ask => "ask",
        }
    }

    /// As people call it.
    pub(super) const fn title(self) -> &'static str {
        match self {
            Self::Bulk1 => "bulk, 1 stream",
            Self::Bulk8 => "bulk, 8 streams",
            Self::Bulk64 => "bulk, 64 streams",
            Self::Connect => "new connections, 16 at once",
            Self::Cold => "cold tunnel, each connection",
            Self::Ask => "request at 1,000/s, half within",
        }
    }

    pub(super) const fn unit(self) -> &'static str {
        match self {
            Self::Bulk1 | Self::Bulk8 | Self::Bulk64 => "Gb/s",
            Self::Connect | Self::Cold => "/s",
            Self::Ask => "us",
        }
    }

    pub(super) const fn cost_unit(self) -> &'static str {
        match self {
            Self::Bulk1 | Self::Bulk8 | Self::Bulk64 => "CPU-s/GiB",
            Self::Connect | Self::Cold | Self::Ask => "CPU-s/1000",
        }
    }

    pub(super) const fn better(self) -> Better {
        match self {
            Self::Ask => Better::Less,
            _ => Better::More,
        }
    }

    /// What is done, for so long where time decides.
    pub(super) fn order(self, seconds: f64) -> Order {
        let order = match self {
            Self::Bulk1 => Order::bulk(1),
            Self::Bulk8 => Order::bulk(8),
            Self::Bulk64 => Order::bulk(64),
            Self::Connect => Order::connect(16),
            Self::Cold => Order { count: Some(COLD.into()), ports: 1, ..Order::connect(STRANGERS) },
            Self::Ask => Order { rate: Some(1000.0), ..Order::ask(16) },
        };
        Order { seconds, pairs: Some(1), ..order }
    }

    /// The way of the mesh in a round.
    pub(super) const fn way(self, round: usize) -> Way {
        match self {
            Self::Cold => Way::Cold(round),
            _ => Way::Meshed,
        }
    }

    /// What the row tells of a slice, in [`Self::unit`].
    pub(super) fn figure(self, slice: &Slice) -> f64 {
        match self {
            Self::Bulk1 | Self::Bulk8 | Self::Bulk64 => slice.gigabits(),
            Self::Connect | Self::Cold => slice.rate(),
            Self::Ask => slice.outcome.p50,
        }
    }

    /// So much CPU time for one of what the cost is counted in.
    pub(super) fn per_work(self, seconds: f64, slice: &Slice) -> f64 {
        let work = match self {
            Self::Bulk1 | Self::Bulk8 | Self::Bulk64 => slice.gibs(),
            Self::Connect | Self::Cold | Self::Ask => slice.thousands(),
        };
        seconds / work.max(f64::MIN_POSITIVE)
    }
}

/// The two neighbours of a round.
#[derive(Clone, Debug, Serialize)]
pub(super) struct Round {
    pub(super) case: Case,
    pub(super) direct: Slice,
    pub(super) meshed: Slice,
}

impl Round {
    /// How good the mesh is beside its neighbour without; 1 is as good.
    pub(super) fn ratio(&self) -> f64 {
        let (direct, meshed) = (self.case.figure(&self.direct), self.case.figure(&self.meshed));
        match self.case.better() {
            Better::More => meshed / direct,
            Better::Less => direct / meshed,
        }
    }

    /// The whole cost without a mesh, to that of the agents: the larger, the cheaper they are.
    pub(super) fn thrift(&self) -> f64 {
        let direct = self.case.per_work(self.direct.cpu(), &self.direct);
        direct / self.case.per_work(self.meshed.mesh(), &self.meshed)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::traffic::Outcome;

    fn slice(seconds: f64, count: u64, p50: f64, agents: f64, load: f64) -> Slice {
        let outcome = Outcome { seconds, count, p50, ..Outcome::default() };
        Slice { outcome, agents: [agents / 2.0, agents / 2.0], load }
    }

    #[test]
    fn a_ratio_is_smaller_the_worse_the_mesh_is() {
        let (direct, meshed) = (slice(1.0, 1000, 20.0, 0.0, 0.1), slice(1.0, 500, 80.0, 0.2, 0.1));
        let rate = Round { case: Case::Connect, direct: direct.clone(), meshed: meshed.clone() };
        assert!((rate.ratio() - 0.5).abs() < 1e-9 && (rate.thrift() - 0.25).abs() < 1e-9, "{rate:?}");
        let latency = Round { case: Case::Ask, direct, meshed };
        assert!((latency.ratio() - 0.25).abs() < 1e-9, "{latency:?}");
    }
}
