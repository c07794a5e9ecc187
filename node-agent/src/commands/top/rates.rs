//! Counters of connections by workload, as the agent's metrics have them, and what they rose by.

use std::collections::BTreeMap;
use std::time::Duration;

/// Which of the counters.
type Field = fn(&mut Counters) -> &mut f64;

/// What a family of metrics is counted as here.
const FAMILIES: [(&str, Field); 5] = [
    ("istio_tcp_connections_opened_total", |counters| &mut counters.opened),
    ("istio_tcp_connections_closed_total", |counters| &mut counters.closed),
    ("istio_tcp_connections_failed_total", |counters| &mut counters.failed),
    ("istio_tcp_sent_bytes_total", |counters| &mut counters.sent),
    ("istio_tcp_received_bytes_total", |counters| &mut counters.received),
];

/// A workload, as the client or as the server of its connections.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Key {
    /// `namespace/workload`.
    pub(super) workload: String,
    /// `out` or `in`.
    pub(super) way: &'static str,
}

/// Counts, or counts a second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct Counters {
    pub(super) opened: f64,
    pub(super) closed: f64,
    pub(super) failed: f64,
    pub(super) sent: f64,
    pub(super) received: f64,
    /// Open now.
    pub(super) open: f64,
}

/// All counters at one moment.
#[derive(Clone, Debug, Default)]
pub(super) struct Sample(BTreeMap<Key, Counters>);

impl Sample {
    /// From the text that is scraped. What is of no interest, or cannot be read, is passed over.
    pub(super) fn read(text: &str) -> Self {
        let mut sample = Self::default();
        for line in text.lines() {
            let Some((name, rest)) = line.split_once('{') else { continue };
            let Some((_, field)) = FAMILIES.iter().find(|(family, _)| *family == name) else { continue };
            let Some((labels, value)) = rest.rsplit_once("} ") else { continue };
            let (Some(key), Ok(value)) = (key(labels), value.trim().parse::<f64>()) else { continue };
            *field(sample.0.entry(key).or_default()) += value;
        }
        sample
    }
}

fn key(labels: &str) -> Option<Key> {
    let (side, way) = match label(labels, "reporter")? {
        "source" => ("source", "out"),
        _ => ("destination", "in"),
    };
    let namespace = label(labels, &format!("{side}_workload_namespace"))?;
    let workload = label(labels, &format!("{side}_workload"))?;
    Some(Key { workload: format!("{namespace}/{workload}"), way })
}

/// The value of a label; names of workloads have nothing in them that is escaped.
fn label<'a>(labels: &'a str, name: &str) -> Option<&'a str> {
    let start = format!("{name}=\"");
    let begins = |at: &usize| *at == 0 || labels.get(..*at).is_some_and(|before| before.ends_with(','));
    let at = labels.match_indices(&start).map(|(at, _)| at).find(begins)?;
    labels.get(at..)?.split('"').nth(1)
}

/// What each workload's counters rose by, a second.
#[derive(Clone, Debug, Default)]
pub(super) struct Rates(Vec<(Key, Counters)>);

impl Rates {
    /// Of two samples so far apart.
    pub(super) fn between(before: &Sample, now: &Sample, apart: Duration) -> Self {
        let seconds = apart.as_secs_f64().max(f64::EPSILON);
        let rate = |(key, now): (&Key, &Counters)| {
            let before = before.0.get(key).copied().unwrap_or_default();
            let of = |now: f64, before: f64| (now - before).max(0.0) / seconds;
            let rates = Counters {
                opened: of(now.opened, before.opened),
                closed: of(now.closed, before.closed),
                failed: of(now.failed, before.failed),
                sent: of(now.sent, before.sent),
                received: of(now.received, before.received),
                open: (now.opened - now.closed).max(0.0),
            };
            (key.clone(), rates)
        };
        let mut rates: Vec<_> = now.0.iter().map(rate).collect();
        let weight = |rate: &Counters| rate.opened + rate.failed;
        rates.sort_by(|(_, one), (_, other)| {
            weight(other).total_cmp(&weight(one)).then(other.open.total_cmp(&one.open))
        });
        Self(rates)
    }

    /// The workloads that open and fail most, first.
    pub(super) fn busiest(&self) -> impl Iterator<Item = (&Key, &Counters)> {
        self.0.iter().map(|(key, rate)| (key, rate))
    }

    /// All of them added up.
    pub(super) fn all(&self) -> Counters {
        let add = |sum: Counters, (_, rate): &(Key, Counters)| Counters {
            opened: sum.opened + rate.opened,
            closed: sum.closed + rate.closed,
            failed: sum.failed + rate.failed,
            sent: sum.sent + rate.sent,
            received: sum.received + rate.received,
            open: sum.open + rate.open,
        };
        self.0.iter().fold(Counters::default(), add)
    }
}
