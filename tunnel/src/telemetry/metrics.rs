//! The metric families, as they are named and described where dashboards look for them.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::labels::{Labels, Reporter};
use super::record::Details;
use crate::error::Flag;

/// The families every connection is counted in.
#[derive(Debug, Clone, Default)]
pub(crate) struct Metrics {
    pub(crate) opened: Family<Labels, Counter>,
    pub(crate) closed: Family<Labels, Counter>,
    pub(crate) failed: Family<Labels, Counter>,
    pub(crate) received_bytes: Family<Labels, Counter>,
    pub(crate) sent_bytes: Family<Labels, Counter>,
    pub(crate) sockets: Family<Reporter, Gauge>,
}

impl Metrics {
    /// Makes the families and registers them.
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let counters = [
            ("istio_tcp_connections_opened", "The total number of TCP connections opened", &metrics.opened),
            ("istio_tcp_connections_closed", "The total number of TCP connections closed", &metrics.closed),
            (
                "istio_tcp_connections_failed",
                "The total number of TCP connections that failed to establish (unstable)",
                &metrics.failed,
            ),
            (
                "istio_tcp_received_bytes",
                "The size of total bytes received during request in case of a TCP connection",
                &metrics.received_bytes,
            ),
            (
                "istio_tcp_sent_bytes",
                "The size of total bytes sent during response in case of a TCP connection",
                &metrics.sent_bytes,
            ),
        ];
        for (name, help, family) in counters {
            registry.register(name, help, family.clone());
        }
        registry.register(
            "istio_tcp_sockets_open",
            "The current number of open TCP sockets (unstable)",
            metrics.sockets.clone(),
        );
        for reporter in [Reporter::Source, Reporter::Destination] {
            drop(metrics.sockets.get_or_create(&reporter));
        }
        metrics
    }

    /// Counts a connection that was refused before anything was dialled.
    pub(crate) fn count_refused(&self, details: &Details) {
        let labels = Labels::new(details.into());
        self.opened.get_or_create(&labels).inc();
        let labels = labels.flagged(Flag::Connect);
        self.closed.get_or_create(&labels).inc();
        self.failed.get_or_create(&labels).inc();
    }
}
