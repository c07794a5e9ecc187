//! What is counted of the export of spans.

use std::sync::atomic::AtomicU64;

use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// Why spans were dropped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Dropped {
    /// As many waited as may.
    QueueFull,
    /// The collector does not want them.
    Refused,
    /// The collector was away for too long.
    Unreachable,
    /// The agent ended.
    Ended,
}

/// The label of the counter.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: Dropped,
}

/// The counters. Cloning shares them.
#[derive(Clone, Debug, Default)]
pub(super) struct Metrics {
    /// Spans that the collector has taken.
    pub(super) exported: Counter<u64, AtomicU64>,
    /// Requests to the collector that failed.
    pub(super) failures: Counter<u64, AtomicU64>,
    dropped: Family<Reason, Counter>,
}

impl EncodeLabelValue for Dropped {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> Result<(), std::fmt::Error> {
        let name = match self {
            Self::QueueFull => "queue_full",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::Ended => "ended",
        };
        EncodeLabelValue::encode(&name, encoder)
    }
}

impl Metrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "culvert_spans_exported",
            "Spans of connections that the collector has taken",
            metrics.exported.clone(),
        );
        registry.register(
            "culvert_spans_dropped",
            "Spans of connections that the collector never got, or did not want",
            metrics.dropped.clone(),
        );
        registry.register(
            "culvert_span_export_failures",
            "Requests to the collector that failed",
            metrics.failures.clone(),
        );
        metrics
    }

    /// Counts what was dropped.
    pub(super) fn lose(&self, reason: Dropped, count: usize) {
        if count > 0 {
            let count = u64::try_from(count).unwrap_or(u64::MAX);
            self.dropped.get_or_create(&Reason { reason }).inc_by(count);
        }
    }
}
