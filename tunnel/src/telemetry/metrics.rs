//! The metric families, as they are named and described where dashboards look for them.
//!
//! Invariant: peers that make names up cannot make the families grow without bound.

use std::collections::HashSet;
use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::dry_run::DryRuns;
use super::labels::{Common, Labels, Reporter};
use super::record::Details;
use super::same_node::{SameNodeConnections, SameNodeOutcome};
use crate::error::Flag;
use crate::gate::Reason;

/// The label sets there are.
#[derive(Debug)]
struct Known {
    limit: usize,
    seen: Mutex<HashSet<Labels>>,
    unlabelled: Counter,
}

impl Default for Known {
    fn default() -> Self {
        Self { limit: usize::MAX, seen: Mutex::default(), unlabelled: Counter::default() }
    }
}

/// The families every connection is counted in.
#[derive(Debug, Clone, Default)]
pub(crate) struct Metrics {
    pub(crate) opened: Family<Labels, Counter>,
    pub(crate) closed: Family<Labels, Counter>,
    pub(crate) failed: Family<Labels, Counter>,
    pub(crate) received_bytes: Family<Labels, Counter>,
    pub(crate) sent_bytes: Family<Labels, Counter>,
    pub(crate) sockets: Family<Reporter, Gauge>,
    /// Connections that were not taken on.
    pub(crate) refused: Family<Reason, Counter>,
    /// What dry-run policies would have decided.
    pub(crate) dry_runs: DryRuns,
    same_node: SameNodeConnections,
    known: Arc<Known>,
}

impl Metrics {
    /// Makes the families and registers them.
    pub(crate) fn register(registry: &mut Registry, max_label_sets: usize) -> Self {
        let known = Arc::new(Known { limit: max_label_sets, ..Known::default() });
        let dry_runs = DryRuns::register(registry);
        let same_node = SameNodeConnections::register(registry);
        let metrics = Self { known, dry_runs, same_node, ..Self::default() };
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
        registry.register(
            "culvert_connections_refused",
            "Connections that were not taken on: the pod has too many, or they would make the agent talk to itself",
            metrics.refused.clone(),
        );
        registry.register(
            "culvert_connections_unlabelled",
            "Connections counted under unknown labels, since there are too many label sets",
            metrics.known.unlabelled.clone(),
        );
        for reporter in [Reporter::Source, Reporter::Destination] {
            drop(metrics.sockets.get_or_create(&reporter));
        }
        metrics
    }

    /// The labels of a connection: its own, unless there are too many already.
    pub(crate) fn labels(&self, details: &Details) -> Labels {
        let labels = Labels::new(details.into());
        let mut seen = self.known.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if seen.contains(&labels) {
            return labels;
        }
        if seen.len() < self.known.limit {
            seen.insert(labels.clone());
            return labels;
        }
        drop(seen);
        self.known.unlabelled.inc();
        Labels::new(Common::unknown(details))
    }

    /// Counts a connection between pods of one node that was to be direct.
    pub(crate) fn count_same_node(&self, outcome: SameNodeOutcome) {
        self.same_node.count(outcome);
    }

    /// Counts a connection that was refused before anything was dialled.
    pub(crate) fn count_refused(&self, details: &Details) {
        let labels = self.labels(details);
        self.opened.get_or_create(&labels).inc();
        let labels = labels.flagged(Flag::Connect);
        self.closed.get_or_create(&labels).inc();
        self.failed.get_or_create(&labels).inc();
    }
}
