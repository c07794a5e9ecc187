//! The metrics of DNS, under the names that dashboards of ambient meshes read.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use mesh::Workload;
use prometheus_client::encoding::{EncodeLabel as _, EncodeLabelSet, LabelSetEncoder};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::{Family, MetricConstructor};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::registry::{Registry, Unit};

use super::message::Transport;

/// Upper ends of the buckets, in seconds.
const BUCKETS: [f64; 6] = [0.0005, 0.001, 0.01, 0.1, 1.0, 5.0];

/// What is counted of DNS.
#[derive(Clone, Debug)]
pub(crate) struct DnsMetrics {
    requests: Family<Labels, Counter>,
    upstream_requests: Family<Labels, Counter>,
    upstream_failures: Family<Labels, Counter>,
    upstream_duration: Family<Labels, Histogram, Buckets>,
}

impl Default for DnsMetrics {
    fn default() -> Self {
        Self {
            requests: Family::default(),
            upstream_requests: Family::default(),
            upstream_failures: Family::default(),
            upstream_duration: Family::new_with_constructor(Buckets),
        }
    }
}

/// Makes the histogram of one label set.
#[derive(Clone, Copy, Debug)]
struct Buckets;

impl MetricConstructor<Histogram> for Buckets {
    fn new_metric(&self) -> Histogram {
        Histogram::new(BUCKETS)
    }
}

/// The labels of a query. There are as many sets as applications, times some forty types, times two transports.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Labels {
    kind: Arc<str>,
    transport: Transport,
    canonical_service: Arc<str>,
    canonical_revision: Arc<str>,
}

impl DnsMetrics {
    /// Makes the families and registers them.
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        let counters = [
            ("istio_dns_requests", "Total number of DNS requests (unstable)", &metrics.requests),
            (
                "istio_dns_upstream_requests",
                "Total number of DNS requests forwarded to upstream (unstable)",
                &metrics.upstream_requests,
            ),
            (
                "istio_dns_upstream_failures",
                "Total number of DNS requests that failed to forward upstream (unstable)",
                &metrics.upstream_failures,
            ),
        ];
        for (name, help, family) in counters {
            registry.register(name, help, family.clone());
        }
        registry.register_with_unit(
            "istio_dns_upstream_request_duration",
            "Total time in seconds Istio takes to get DNS response from upstream (unstable)",
            Unit::Seconds,
            metrics.upstream_duration.clone(),
        );
        metrics
    }

    /// Counts a query.
    pub(crate) fn count(&self, labels: &Labels) {
        self.requests.get_or_create(labels).inc();
    }

    /// Counts a query that was passed on, and how long that took.
    pub(crate) fn count_upstream(&self, labels: &Labels, took: Duration, failed: bool) {
        self.upstream_requests.get_or_create(labels).inc();
        self.upstream_duration.get_or_create(labels).observe(took.as_secs_f64());
        if failed {
            self.upstream_failures.get_or_create(labels).inc();
        }
    }
}

impl Labels {
    /// Of a query of this type (in lower case), from the pod with this workload if the mesh knows one.
    pub(crate) fn new(kind: &str, transport: Transport, own: Option<&Workload>) -> Self {
        let empty = || Arc::from("");
        Self {
            kind: kind.into(),
            transport,
            canonical_service: own.map_or_else(empty, |own| Arc::clone(&own.canonical_name)),
            canonical_revision: own.map_or_else(empty, |own| Arc::clone(&own.canonical_revision)),
        }
    }
}

impl EncodeLabelSet for Labels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        let transport = match self.transport {
            Transport::Udp => "udp",
            Transport::Tcp => "tcp",
        };
        let mut put = |key: &str, value: &str| {
            let value = if value.is_empty() { "unknown" } else { value };
            (key, value).encode(encoder.encode_label())
        };
        put("request_query_type", &self.kind)?;
        put("request_protocol", transport)?;
        put("source_canonical_service", &self.canonical_service)?;
        put("source_canonical_revision", &self.canonical_revision)
    }
}
