//! What the metrics say at one moment of who talks to whom, and of the control plane.
//!
//! The counters are those that everybody scrapes, and count since the agent's start. Between two pods of this node each end counts:
//! then the two are one connection, and the larger count is the truth that both have part in.

use std::collections::BTreeMap;

use prometheus_client::registry::Registry;

use super::exposition::{Series, each_series};

/// One end of a connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct End {
    /// `namespace/workload`; empty if it is nobody that the mesh knows.
    pub(super) workload: String,
    /// Its identity; empty if none is known.
    pub(super) identity: String,
}

/// Who talks to whom, and how.
#[derive(Clone, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    pub(super) from: End,
    pub(super) to: End,
    pub(super) mutual_tls: bool,
}

/// Counts since the agent's start.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Counts {
    pub(super) opened: f64,
    pub(super) closed: f64,
    pub(super) failed: f64,
    /// Those of the failed that policy refused, by this agent's own word.
    pub(super) denied: f64,
    /// Bytes to the server.
    pub(super) received: f64,
    /// Bytes to the client.
    pub(super) sent: f64,
}

impl Counts {
    /// Two counts of the same things.
    fn larger(self, other: Self) -> Self {
        Self {
            opened: self.opened.max(other.opened),
            closed: self.closed.max(other.closed),
            failed: self.failed.max(other.failed),
            denied: self.denied.max(other.denied),
            received: self.received.max(other.received),
            sent: self.sent.max(other.sent),
        }
    }
}

/// All of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Figures {
    /// By who tells: the client's side, the server's.
    edges: BTreeMap<Key, [Counts; 2]>,
    /// Whether there is a stream to the control plane; none without one.
    pub(super) connected: Option<bool>,
    /// When a response of it was last taken over, in seconds since 1970; none if never.
    pub(super) updated: Option<f64>,
    /// Resources of it, or versions of the mesh file, that could not be taken over.
    pub(super) rejected: f64,
    /// Connections that were not taken on at all.
    pub(super) turned_away: f64,
}

impl Figures {
    /// Of this moment. What cannot be read of the metrics is left out.
    pub(super) fn of(registry: &Registry) -> Self {
        let mut figures = Self::default();
        if each_series(registry, |series| figures.take(series)).is_err() {
            tracing::debug!("the metrics could not be read to their end");
        }
        figures
    }

    /// Every edge, with its counts.
    pub(super) fn edges(&self) -> impl Iterator<Item = (&Key, Counts)> {
        self.edges.iter().map(|(key, [client, server])| (key, client.larger(*server)))
    }

    /// The counts of an edge; zeros if it is not there.
    pub(super) fn counts(&self, key: &Key) -> Counts {
        self.edges.get(key).map(|[client, server]| client.larger(*server)).unwrap_or_default()
    }

    fn take(&mut self, series: &Series<'_>) {
        match series.name {
            "culvert_xds_connected" => self.connected = Some(series.value > 0.0),
            "culvert_xds_last_update_timestamp_seconds" => {
                self.updated = (series.value > 0.0).then_some(series.value);
            }
            "culvert_xds_rejected_resources_total" | "culvert_mesh_file_rejected_total" => {
                self.rejected += series.value;
            }
            "culvert_connections_refused_total" => self.turned_away += series.value,
            name => {
                if let Some(field) = name.strip_prefix("istio_tcp_") {
                    self.count(field, series);
                }
            }
        }
    }

    fn count(&mut self, field: &str, series: &Series<'_>) {
        let which: fn(&mut Counts) -> &mut f64 = match field {
            "connections_opened_total" => |counts| &mut counts.opened,
            "connections_closed_total" => |counts| &mut counts.closed,
            "connections_failed_total" => |counts| &mut counts.failed,
            "received_bytes_total" => |counts| &mut counts.received,
            "sent_bytes_total" => |counts| &mut counts.sent,
            _ => return,
        };
        let labels = Labels::of(series);
        let [client, server] = self.edges.entry(labels.key).or_default();
        let counts = if labels.by_server { server } else { client };
        *which(counts) += series.value;
        if labels.is_denied && field == "connections_failed_total" {
            counts.denied += series.value;
        }
    }
}

/// What is wanted of a series' labels.
#[derive(Default)]
struct Labels {
    key: Key,
    by_server: bool,
    is_denied: bool,
}

impl Labels {
    fn of(series: &Series<'_>) -> Self {
        let mut labels = Self::default();
        let [mut from, mut to] = [(); 2].map(|()| (String::new(), String::new()));
        series.each_label(|name, value| {
            let known = if value == "unknown" { "" } else { value };
            match name {
                "reporter" => labels.by_server = value == "destination",
                "response_flags" => labels.is_denied = value == "DENY",
                "connection_security_policy" => labels.key.mutual_tls = value == "mutual_tls",
                "source_workload" => from.1 = known.to_owned(),
                "source_workload_namespace" => from.0 = known.to_owned(),
                "source_principal" => labels.key.from.identity = known.to_owned(),
                "destination_workload" => to.1 = known.to_owned(),
                "destination_workload_namespace" => to.0 = known.to_owned(),
                "destination_principal" => labels.key.to.identity = known.to_owned(),
                _ => {}
            }
        });
        let named = |(namespace, workload): (String, String)| {
            if workload.is_empty() { String::new() } else { format!("{namespace}/{workload}") }
        };
        (labels.key.from.workload, labels.key.to.workload) = (named(from), named(to));
        labels
    }
}
