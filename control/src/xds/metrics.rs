//! What is counted of the control plane.
//!
//! The first three have the names and labels that dashboards of the field read; the others come beside them.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::{Registry, Unit};

use super::kind::Kind;

/// The type of a response that was not asked for.
const OTHER: &str = "other";

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Reason {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Url {
    url: &'static str,
}

/// The metrics of a client.
#[derive(Clone, Debug, Default)]
pub(super) struct Metrics {
    terminations: Family<Reason, Counter>,
    messages: Family<Url, Counter>,
    bytes: Family<Url, Counter>,
    rejected: Family<Url, Counter>,
    updated: Gauge,
    connected: Gauge,
}

impl Metrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "istio_xds_connection_terminations",
            "How connections to the control plane ended",
            metrics.terminations.clone(),
        );
        registry.register("istio_xds_message", "Responses of the control plane", metrics.messages.clone());
        registry.register_with_unit(
            "istio_xds_message",
            "Bytes of the resources in responses of the control plane",
            Unit::Bytes,
            metrics.bytes.clone(),
        );
        registry.register(
            "culvert_xds_rejected_resources",
            "Resources of the control plane that could not be taken over",
            metrics.rejected.clone(),
        );
        registry.register(
            "culvert_xds_last_update_timestamp_seconds",
            "When a response of the control plane was last taken over, in seconds since 1970",
            metrics.updated.clone(),
        );
        registry.register(
            "culvert_xds_connected",
            "Whether there is a stream to the control plane",
            metrics.connected.clone(),
        );
        metrics
    }

    pub(super) fn terminated(&self, reason: &'static str) {
        self.terminations.get_or_create(&Reason { reason }).inc();
    }

    pub(super) fn received(&self, kind: Option<Kind>, bytes: usize) {
        let url = Url { url: kind.map_or(OTHER, Kind::type_url) };
        self.messages.get_or_create(&url).inc();
        self.bytes.get_or_create(&url).inc_by(u64::try_from(bytes).unwrap_or(u64::MAX));
    }

    pub(super) fn rejected(&self, kind: Kind, count: usize) {
        let count = u64::try_from(count).unwrap_or(u64::MAX);
        self.rejected.get_or_create(&Url { url: kind.type_url() }).inc_by(count);
    }

    pub(super) fn updated(&self) {
        let since = std::time::SystemTime::UNIX_EPOCH.elapsed().unwrap_or_default();
        self.updated.set(i64::try_from(since.as_secs()).unwrap_or(i64::MAX));
    }

    pub(super) fn connected(&self) -> Connected {
        self.connected.set(1);
        Connected(self.connected.clone())
    }
}

/// There is a stream while this is.
pub(super) struct Connected(Gauge);

impl Drop for Connected {
    fn drop(&mut self) {
        self.0.set(0);
    }
}
