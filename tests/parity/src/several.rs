//! Rows in which several connections are made: which endpoint each of them gets is chance, how often each is got is not quite.
//!
//! Invariant: more connections are made than were recorded, so many that each endpoint is got at least once. What is compared is each
//! line, each series and each result once; how many there are of them must add up.

use std::collections::BTreeMap;

use anyhow::{Result, ensure};
use recordings::parity::Row;
use serde_json::Value;

use crate::outcome::{Fields, Outcome, text};

/// How many connections are made for each that was recorded: with 60 in place of 12, one of three endpoints is missed once in
/// 10^10 runs.
const MORE: usize = 5;
/// How many standard deviations an endpoint's share may be off.
const LEEWAY: f64 = 6.0;

/// How many connections are made for a row.
pub fn count(row: &Row) -> usize {
    if is_it(row) { row.results.len() * MORE } else { 1 }
}

/// Whether a row has several connections, rather than several looks at one.
pub fn is_it(row: &Row) -> bool {
    row.results.len() > 1 && row.results.iter().all(|result| result.get("outcome").is_some())
}

/// Each object once, series without by how much they moved.
#[must_use]
pub fn once(mut outcome: Outcome) -> Outcome {
    outcome.metrics.iter_mut().flatten().for_each(|series| {
        series.remove("plus");
    });
    let mut outcome = outcome.sorted();
    outcome.results.dedup();
    outcome.log.iter_mut().for_each(Vec::dedup);
    outcome.metrics.iter_mut().for_each(Vec::dedup);
    outcome
}

/// Whether what was counted adds up: each connection opened is one line, closed once; those that got an answer are as many as were
/// made; and of several endpoints each got its share.
pub fn adds_up(row: &Row, ours: &Outcome) -> Result<()> {
    let made = count(row);
    ensure!(ours.results.len() == made, "{} results of {made} connections", ours.results.len());
    let (Some(log), Some(metrics)) = (&ours.log, &ours.metrics) else { return Ok(()) };
    for (direction, reporter) in [("outbound", "source"), ("inbound", "destination")] {
        let lines = log.iter().filter(|line| text(line, "direction") == direction).count();
        let sum = |name: &str| {
            let of = |series: &&Fields| text(series, "name") == name && text(series, "reporter") == reporter;
            metrics.iter().filter(of).filter_map(|series| series.get("plus")?.as_u64()).sum::<u64>()
        };
        let (opened, closed) = (sum("opened"), sum("closed"));
        ensure!(
            (opened, closed) == (lines as u64, lines as u64),
            "{direction}: {lines} lines, {opened} opened, {closed} closed"
        );
        ensure!(direction == "inbound" || lines >= made, "{lines} lines of {made} connections");
    }
    shares(row, ours)
}

/// Endpoints of the same weight get the same share, as far as chance allows.
fn shares(row: &Row, ours: &Outcome) -> Result<()> {
    let recorded: BTreeMap<&str, usize> =
        by_local(row.results.iter().filter_map(|result| result.pointer("/by/local").and_then(Value::as_str)));
    let got = by_local(ours.results.iter().map(|result| text(result, "by.local")));
    let (count, share) = (ours.results.len() as f64, 1.0 / recorded.len().max(1) as f64);
    let deviation = (count * share * (1.0 - share)).sqrt();
    for endpoint in recorded.keys() {
        let times = got.get(endpoint).copied().unwrap_or_default();
        let off = (times as f64 - count * share).abs();
        ensure!(off <= LEEWAY * deviation, "{endpoint} got {times} of {count} connections");
    }
    Ok(())
}

fn by_local<'a>(endpoints: impl Iterator<Item = &'a str>) -> BTreeMap<&'a str, usize> {
    let mut counts = BTreeMap::new();
    endpoints.for_each(|endpoint| *counts.entry(endpoint).or_default() += 1);
    counts
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn row() -> Row {
        let answered = |local: &str| json!({ "outcome": "answered", "by": { "local": local } });
        serde_json::from_value(json!({
            "group": "routing", "about": "", "from": "sleep", "to": "10.96.0.1:80", "xds_before": 1, "xds_messages": 1,
            "results": vec![[answered("a"), answered("b")]; 10].concat(), "access_log": [], "metrics": [],
        }))
        .unwrap()
    }

    fn ours(a: usize, b: usize, lines: usize, opened: u64) -> Outcome {
        let fields = |value: Value| -> Fields { serde_json::from_value(value).unwrap() };
        let result = |local: &str| fields(json!({ "outcome": "answered", "by.local": local }));
        let series = |name: &str| fields(json!({ "name": name, "reporter": "source", "plus": opened }));
        Outcome {
            results: [vec![result("a"); a], vec![result("b"); b]].concat(),
            log: Some(vec![fields(json!({ "direction": "outbound" })); lines]),
            metrics: Some(vec![series("opened"), series("closed")]),
        }
    }

    #[test]
    fn what_does_not_add_up_is_told() {
        let row = row();
        assert_eq!(count(&row), 100);
        adds_up(&row, &ours(45, 55, 100, 100)).unwrap();
        // An attempt that failed before another endpoint was tried is a line of its own.
        adds_up(&row, &ours(45, 55, 105, 105)).unwrap();
        for wrong in
            [ours(45, 54, 99, 99), ours(45, 55, 99, 99), ours(45, 55, 100, 101), ours(99, 1, 100, 100)]
        {
            adds_up(&row, &wrong).unwrap_err();
        }
    }

    #[test]
    fn each_is_compared_once() {
        let few = once(ours(1, 1, 2, 2));
        assert_eq!(few, once(ours(9, 11, 20, 20)));
        assert_eq!((few.results.len(), few.log.unwrap().len()), (2, 1));
        let series = &few.metrics.unwrap()[0];
        assert!(!series.contains_key("plus"));
    }
}
