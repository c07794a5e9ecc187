//! One state of the node, as the page is told it.
//!
//! Invariant: it is bounded, however many pods, peers and certificates there are; what is left out is counted.

use std::time::Duration;

use serde::Serialize;
use time::OffsetDateTime;

use super::edges::{self, Connections};
use super::figures::Figures;
use crate::admin::{Admin, moment};
use crate::admin_socket::certificates::{self, CertificateRow};
use crate::admin_socket::pods::{self, PodRow};
use crate::events::Event;

const MAX_PODS: usize = 500;
const MAX_CERTIFICATES: usize = 200;
/// Refusals that are shown: the last.
const MAX_REFUSALS: usize = 20;
/// The scope of connections among the events.
const CONNECTIONS: &str = "access";

/// Some of many.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Part<T> {
    rows: Vec<T>,
    left_out: usize,
}

impl<T> Part<T> {
    fn of(mut rows: Vec<T>, limit: usize) -> Self {
        let left_out = rows.len().saturating_sub(limit);
        rows.truncate(limit);
        Self { rows, left_out }
    }
}

/// What the mesh is fed by, and how that is.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct Source {
    /// `file` or `controlPlane`.
    kind: &'static str,
    /// Whether there is a stream to the control plane.
    connected: Option<bool>,
    /// RFC 3339.
    updated: Option<String>,
    rejected: f64,
    workloads: usize,
    services: usize,
    policies: usize,
}

/// The state.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct State {
    version: &'static str,
    node: String,
    process: u32,
    /// RFC 3339.
    at: String,
    /// What the agent still waits for before it is ready.
    pending: Vec<&'static str>,
    source: Source,
    /// By state: enrolled, degraded, pending.
    pod_counts: [usize; 3],
    pods: Part<PodRow>,
    connections: Connections,
    turned_away: f64,
    certificates: Part<CertificateRow>,
    refusals: Vec<Event>,
}

impl State {
    /// Of this moment, with rates since an earlier one. May take a while: not for a thread that others wait for.
    pub(super) fn of(admin: &Admin, now: &Figures, before: Option<(&Figures, Duration)>) -> Self {
        let snapshot = admin.store.load();
        let mut pods = pods::rows(&snapshot, &*admin.node, admin.node.pods());
        let count = |state: &str| pods.iter().filter(|pod| pod.state == state).count();
        let pod_counts = ["enrolled", "degraded", "pending"].map(count);
        // Those with which something is the matter first.
        pods.sort_by_key(|pod| pod.state == "enrolled");
        let mut certificates = certificates::rows(&*admin.node);
        certificates.sort_by_key(|row| (row.state == "valid", row.seconds_left));
        let source = Source {
            kind: if admin.mesh_is_given { "file" } else { "controlPlane" },
            connected: now.connected,
            updated: now.updated.and_then(rfc3339),
            rejected: now.rejected,
            workloads: snapshot.workloads().count(),
            services: snapshot.services().count(),
            policies: snapshot.policies().count(),
        };
        Self {
            version: env!("CARGO_PKG_VERSION"),
            node: node(&admin.config),
            process: std::process::id(),
            at: moment(OffsetDateTime::now_utc()),
            pending: admin.readiness.pending(),
            source,
            pod_counts,
            pods: Part::of(pods, MAX_PODS),
            connections: edges::connections(now, before),
            turned_away: now.turned_away,
            certificates: Part::of(certificates, MAX_CERTIFICATES),
            refusals: refusals(admin),
        }
    }
}

/// The node's name, as the configuration has it.
fn node(config: &serde_json::Value) -> String {
    config.pointer("/node/value").and_then(serde_json::Value::as_str).unwrap_or_default().to_owned()
}

/// The last, newest first.
fn refusals(admin: &Admin) -> Vec<Event> {
    let (events, _) = admin.events.after(0);
    events.into_iter().rev().filter(|event| event.scope == CONNECTIONS).take(MAX_REFUSALS).collect()
}

/// The metric is a float; its value is whole.
fn rfc3339(seconds: f64) -> Option<String> {
    OffsetDateTime::from_unix_timestamp(seconds as i64).ok().map(moment)
}
