//! The edges of the graph as they are shown: who talks to whom, how much now, and what was refused.

use std::cmp::Reverse;
use std::time::Duration;

use serde::Serialize;

use super::figures::{Counts, End, Figures, Key};

/// Edges that are shown; the busiest, and those on which something fails.
const MAX_EDGES: usize = 200;

/// One end.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct EndView {
    workload: String,
    identity: String,
}

impl From<&End> for EndView {
    fn from(end: &End) -> Self {
        Self { workload: end.workload.clone(), identity: end.identity.clone() }
    }
}

/// Per second.
#[derive(Clone, Copy, Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Rates {
    opened: f64,
    failed: f64,
    to_server: f64,
    to_client: f64,
}

/// An edge.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct EdgeView {
    from: EndView,
    to: EndView,
    mutual_tls: bool,
    /// Open now.
    open: f64,
    /// Since the agent's start, as are the next two.
    opened: f64,
    failed: f64,
    denied: f64,
    /// None at the first look.
    #[serde(skip_serializing_if = "Option::is_none")]
    rates: Option<Rates>,
}

/// All connections together.
#[derive(Debug, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct Connections {
    open: f64,
    opened: f64,
    failed: f64,
    denied: f64,
    #[serde(skip_serializing_if = "Option::is_none")]
    rates: Option<Rates>,
    edges: Vec<EdgeView>,
    /// Edges that are not shown.
    left_out: usize,
}

/// What there is now, beside what there was so long ago.
pub(super) fn connections(now: &Figures, before: Option<(&Figures, Duration)>) -> Connections {
    let mut all = Connections { rates: before.map(|_| Rates::default()), ..Connections::default() };
    for (key, counts) in now.edges() {
        let rates = before.map(|(before, apart)| rates(counts, before.counts(key), apart));
        let edge = edge(key, counts, rates);
        all.open += edge.open;
        all.opened += edge.opened;
        all.failed += edge.failed;
        all.denied += edge.denied;
        if let (Some(sum), Some(rates)) = (&mut all.rates, rates) {
            sum.opened += rates.opened;
            sum.failed += rates.failed;
            sum.to_server += rates.to_server;
            sum.to_client += rates.to_client;
        }
        all.edges.push(edge);
    }
    all.edges.sort_by(|one, other| {
        let weight = |edge: &EdgeView| {
            let rates = edge.rates.unwrap_or_default();
            let now = rates.opened + rates.failed;
            [now + edge.open, rates.to_server + rates.to_client, edge.failed, edge.opened]
        };
        let (one, other) = (weight(one), weight(other));
        let order = one.iter().zip(&other).map(|(one, other)| other.total_cmp(one));
        order.fold(std::cmp::Ordering::Equal, std::cmp::Ordering::then)
    });
    // What failed is not to be missed, though it be long ago.
    all.edges.sort_by_key(|edge| Reverse(edge.failed > 0.0));
    all.left_out = all.edges.len().saturating_sub(MAX_EDGES);
    all.edges.truncate(MAX_EDGES);
    all
}

fn edge(key: &Key, counts: Counts, rates: Option<Rates>) -> EdgeView {
    EdgeView {
        from: EndView::from(&key.from),
        to: EndView::from(&key.to),
        mutual_tls: key.mutual_tls,
        open: (counts.opened - counts.closed).max(0.0),
        opened: counts.opened,
        failed: counts.failed,
        denied: counts.denied,
        rates,
    }
}

fn rates(now: Counts, before: Counts, apart: Duration) -> Rates {
    let seconds = apart.as_secs_f64().max(f64::EPSILON);
    // A label set that was forgotten counts from nothing.
    let of = |now: f64, before: f64| (now - before).max(0.0) / seconds;
    Rates {
        opened: of(now.opened, before.opened),
        failed: of(now.failed, before.failed),
        to_server: of(now.received, before.received),
        to_client: of(now.sent, before.sent),
    }
}
