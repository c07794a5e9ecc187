//! The metric families, as they are named and described where dashboards look for them.
//!
//! Invariant: peers that make names up cannot make the families grow without bound.

use std::ops::Deref;
use std::sync::Arc;
use std::time::Duration;

use mesh::{Snapshot, Workload};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

use super::connect_times::Clocks;
use super::dry_run::DryRuns;
use super::known::{Held, Known};
use super::labels::{Common, Labels, OnDemand, Reporter};
use super::party::Party;
use super::reasons::Reasons;
use super::record::Details;
use super::same_node::{SameNodeConnections, SameNodeOutcome};
use crate::dns::DnsMetrics;
use crate::error::Flag;
use crate::gate::Reason;
use crate::outbound::attempts::Outcome;

/// The families every connection is counted in. Cloning shares them.
#[derive(Debug, Clone, Default)]
pub(crate) struct Metrics(Arc<Families>);

impl Deref for Metrics {
    type Target = Families;

    fn deref(&self) -> &Families {
        &self.0
    }
}

/// What the clones share.
#[derive(Debug)]
pub(crate) struct Families {
    pub(crate) opened: Family<Labels, Counter>,
    pub(crate) closed: Family<Labels, Counter>,
    pub(crate) failed: Family<Labels, Counter>,
    pub(crate) received_bytes: Family<Labels, Counter>,
    pub(crate) sent_bytes: Family<Labels, Counter>,
    pub(crate) sockets: Family<Reporter, Gauge>,
    /// Connections that were not taken on.
    pub(crate) refused: Family<Reason, Counter>,
    /// Connections whose first endpoint could not be reached.
    pub(crate) retries: Family<Outcome, Counter>,
    /// Why connections were denied, cut or turned away.
    pub(crate) reasons: Reasons,
    /// What dry-run policies would have decided.
    pub(crate) dry_runs: DryRuns,
    /// How long connections take, while somebody asks.
    pub(crate) clocks: Clocks,
    same_node: SameNodeConnections,
    /// What is counted of DNS queries.
    pub(crate) dns: DnsMetrics,
    /// Connections that needed a name to be resolved.
    on_demand: Family<OnDemand, Counter>,
    known: Arc<Known>,
}

impl Default for Families {
    fn default() -> Self {
        Self {
            opened: Family::default(),
            closed: Family::default(),
            failed: Family::default(),
            received_bytes: Family::default(),
            sent_bytes: Family::default(),
            sockets: Family::default(),
            refused: Family::default(),
            retries: Family::default(),
            reasons: Reasons::default(),
            dry_runs: DryRuns::default(),
            clocks: Clocks::default(),
            same_node: SameNodeConnections::default(),
            dns: DnsMetrics::default(),
            on_demand: Family::default(),
            known: Arc::new(Known::new(usize::MAX)),
        }
    }
}

impl Metrics {
    /// Makes the families and registers them.
    pub(crate) fn register(registry: &mut Registry, max_label_sets: usize) -> Self {
        let metrics = Families {
            known: Arc::new(Known::new(max_label_sets)),
            reasons: Reasons::register(registry),
            dry_runs: DryRuns::register(registry),
            same_node: SameNodeConnections::register(registry),
            dns: DnsMetrics::register(registry),
            ..Families::default()
        };
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
            "culvert_connect_retries",
            "Connections to a service whose first endpoint could not be reached, by what became of them",
            metrics.retries.clone(),
        );
        registry.register(
            "culvert_connections_unlabelled",
            "Connections counted under unknown labels, since there are too many label sets",
            metrics.known.unlabelled.clone(),
        );
        registry.register(
            "istio_on_demand_dns",
            "The total number of requests that used on-demand DNS (unstable)",
            metrics.on_demand.clone(),
        );
        for reporter in [Reporter::Source, Reporter::Destination] {
            drop(metrics.sockets.get_or_create(&reporter));
        }
        Self(Arc::new(metrics))
    }

    /// The labels of a connection, and its hold on them: its own, unless there are too many already.
    pub(super) fn labels(&self, details: &Details) -> (Labels, Option<Held>) {
        let labels = Labels::new(details.into());
        match self.known.hold(&labels) {
            Some(held) => (labels, Some(held)),
            None => (Labels::new(Common::unknown(details)), None),
        }
    }

    /// Counts a connection between pods of one node that was to be direct.
    pub(crate) fn count_same_node(&self, outcome: SameNodeOutcome) {
        self.same_node.count(outcome);
    }

    /// Counts a connection of `own` for which `hostname` had to be resolved.
    pub(crate) fn count_on_demand(&self, own: &Workload, hostname: &Arc<str>) {
        let source = Party::of(own, Some(own.identity()));
        self.on_demand.get_or_create(&OnDemand { source, hostname: Arc::clone(hostname) }).inc();
    }

    /// Counts a connection that was refused before anything was dialled.
    pub(crate) fn count_refused(&self, details: &Details) {
        let (labels, _held) = self.labels(details);
        self.opened.get_or_create(&labels).inc();
        let labels = labels.flagged(Flag::Connect);
        self.closed.get_or_create(&labels).inc();
        self.failed.get_or_create(&labels).inc();
    }

    /// Forgets label sets that nobody has used for so long and that name workloads which are gone.
    pub(crate) fn release(&self, unused: Duration, snapshot: &Snapshot) {
        let families = [&self.opened, &self.closed, &self.failed, &self.received_bytes, &self.sent_bytes];
        self.known.release(unused, snapshot, |labels| {
            for flagged in Flag::ALL.map(|flag| labels.flagged(flag)) {
                for family in families {
                    family.remove(&flagged);
                }
            }
        });
    }
}
