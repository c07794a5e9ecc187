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
    let (side, way) = match label(labels, "reporter")?.as_str() {
        "source" => ("source", "out"),
        _ => ("destination", "in"),
    };
    let namespace = label(labels, &format!("{side}_workload_namespace"))?;
    let workload = label(labels, &format!("{side}_workload"))?;
    Some(Key { workload: format!("{namespace}/{workload}"), way })
}

/// The value of a label, with its escapes (`\\`, `\"`, `\n`) taken back.
fn label(labels: &str, name: &str) -> Option<String> {
    let mut rest = labels;
    loop {
        let (label, after) = rest.split_once("=\"")?;
        let (value, after) = quoted(after)?;
        if label == name {
            return Some(value);
        }
        rest = after.strip_prefix(',')?;
    }
}

/// What stands before the next quotation mark that is not escaped, and what comes behind it.
fn quoted(text: &str) -> Option<(String, &str)> {
    let mut value = String::new();
    let mut rest = text.chars();
    loop {
        match rest.next()? {
            '"' => return Some((value, rest.as_str())),
            '\\' => match rest.next()? {
                'n' => value.push('\n'),
                other => value.push(other),
            },
            other => value.push(other),
        }
    }
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_read_with_their_escapes_taken_back() {
        let labels =
            r#"note="a\\",workload="we\"b\\n",source_workload="x,workload=\"y",line="one\ntwo",last="""#;
        for (name, value) in [
            ("note", Some("a\\")),
            ("workload", Some("we\"b\\n")),
            ("source_workload", Some("x,workload=\"y")),
            ("line", Some("one\ntwo")),
            ("last", Some("")),
            ("load", None),
        ] {
            assert_eq!(label(labels, name).as_deref(), value, "{name}");
        }
        // Cut short.
        for odd in [r#"a="b"#, r#"a="b\"#, "a=", ""] {
            assert_eq!(label(odd, "a"), None, "{odd}");
        }
    }
}
