//! The series of `istio_tcp_connections_*`: as they were recorded, as an agent shows them, and what has moved between two looks.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result};
use harness::Agent;
use recordings::parity::Moved;
use serde_json::{Value, json};

use crate::outcome::Fields;

const PREFIX: &str = "istio_tcp_connections_";
const SUFFIX: &str = "_total";

/// The counters of both nodes: by node and text of the series.
pub type Counters = BTreeMap<(String, String), u64>;

/// A series of the recording.
pub fn of_recorded(moved: &Moved) -> Fields {
    // Counts of connections are whole.
    fields(&moved.node, &moved.series, moved.plus as u64)
}

/// What an agent shows now.
pub fn of_agent(node: &str, agent: &Agent) -> Result<Counters> {
    let text = agent.metrics()?;
    let lines = text.lines().filter(|line| line.starts_with(PREFIX));
    lines
        .map(|line| {
            let (series, value) = line.rsplit_once(' ').with_context(|| format!("no value in {line}"))?;
            let value: f64 = value.parse().with_context(|| format!("no number in {line}"))?;
            Ok(((node.to_owned(), series.to_owned()), value as u64))
        })
        .collect()
}

/// What has moved from one look to the next.
pub fn moved(before: &Counters, after: &Counters) -> Vec<Fields> {
    let plus = |key: &(String, String), value: u64| value - before.get(key).copied().unwrap_or(0).min(value);
    let moved = after.iter().map(|(key, value)| (key, plus(key, *value))).filter(|(_, plus)| *plus > 0);
    moved.map(|((node, series), plus)| fields(node, series, plus)).collect()
}

/// Labels are a set: their order is nobody's business.
fn fields(node: &str, series: &str, plus: u64) -> Fields {
    let (name, labels) = series.split_once('{').unwrap_or((series, ""));
    let name = name.strip_prefix(PREFIX).and_then(|name| name.strip_suffix(SUFFIX)).unwrap_or(name);
    let mut fields = Fields::from_iter([
        ("node".to_owned(), node.into()),
        ("name".to_owned(), name.into()),
        ("plus".to_owned(), json!(plus)),
    ]);
    // No value of these has a quotation mark or a comma in it.
    for label in labels.trim_end_matches('}').split("\",").filter(|label| !label.is_empty()) {
        if let Some((key, value)) = label.split_once("=\"") {
            fields.insert(key.to_owned(), Value::from(value.trim_end_matches('"')));
        }
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_moved_is_told_with_its_labels_and_nothing_else_is() {
        let key = |series: &str| ("a".to_owned(), series.to_owned());
        let (still, runs) = (
            "istio_tcp_connections_opened_total{x=\"1\"}",
            "istio_tcp_connections_closed_total{flag=\"-\",to=\"\"}",
        );
        let before = Counters::from([(key(still), 3), (key(runs), 3)]);
        let new = "istio_tcp_connections_failed_total{a=\"b c\"}";
        let after = Counters::from([(key(still), 3), (key(runs), 5), (key(new), 1)]);
        assert_eq!(
            Value::from_iter(moved(&before, &after).into_iter().map(Value::Object)),
            json!([
                { "node": "a", "name": "closed", "plus": 2, "flag": "-", "to": "" },
                { "node": "a", "name": "failed", "plus": 1, "a": "b c" },
            ])
        );
    }
}
