//! Counts whether pods of one node are connected as was asked for.

use std::fmt;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// What became of a connection to a pod of the same node that was to be direct.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum SameNodeOutcome {
    /// It is.
    Direct,
    /// It did not come about, and HBONE was used.
    Fallback,
}

impl EncodeLabelValue for SameNodeOutcome {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        let label = match self {
            Self::Direct => "direct",
            Self::Fallback => "fallback",
        };
        label.encode(encoder)
    }
}

/// The label of the counter.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Outcome {
    outcome: SameNodeOutcome,
}

/// The counter's family.
#[derive(Debug, Clone, Default)]
pub(super) struct SameNodeConnections(Family<Outcome, Counter>);

impl SameNodeConnections {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let family = Self::default();
        registry.register(
            "culvert_same_node_connections",
            "Connections to pods of the same node that were to be direct, and what became of them",
            family.0.clone(),
        );
        family
    }

    pub(super) fn count(&self, outcome: SameNodeOutcome) {
        self.0.get_or_create(&Outcome { outcome }).inc();
    }
}
