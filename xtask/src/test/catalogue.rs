//! docs/metrics.md as data: the agent's metrics, their types and labels.
//!
//! It is the one list that rules, dashboards and code are compared with, so that none of them can name what is not there.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context as _, Result, bail, ensure};

use super::promql;
use crate::shell;

/// Its document.
pub(super) const DOCUMENT: &str = "docs/metrics.md";
/// Labels that Prometheus gives the series of a target.
const OF_TARGETS: [&str; 6] = ["job", "instance", "namespace", "pod", "node", "cluster"];
/// What is not the agent's to tell, and which of its labels are used.
const OF_OTHERS: [(&str, &[&str]); 4] = [
    ("up", &[]),
    ("kube_pod_status_ready", &["condition"]),
    ("kube_pod_container_resource_limits", &["container", "resource"]),
    ("container_memory_working_set_bytes", &["container"]),
];

/// A row.
#[derive(Debug)]
pub(super) struct Metric {
    pub(super) kind: String,
    pub(super) labels: BTreeSet<String>,
}

/// All rows, by name.
#[derive(Debug)]
pub(super) struct Catalogue(pub(super) BTreeMap<String, Metric>);

impl Catalogue {
    /// Reads the document.
    pub(super) fn read() -> Result<Self> {
        let text = std::fs::read_to_string(shell::root().join(DOCUMENT)).context(DOCUMENT)?;
        Self::parse(&text)
    }

    fn parse(text: &str) -> Result<Self> {
        let (mut groups, mut metrics) = (BTreeMap::new(), BTreeMap::new());
        for line in text.lines() {
            let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
            match cells.as_slice() {
                [group, labels] if group.starts_with('*') => {
                    groups.insert((*group).to_owned(), quoted(labels).collect::<BTreeSet<_>>());
                }
                [name, kind @ ("counter" | "gauge" | "histogram"), labels, meaning] => {
                    let name = quoted(name).next().with_context(|| format!("no name: {line}"))?;
                    ensure!(!meaning.is_empty(), "{name} means nothing in {DOCUMENT}");
                    let mut all: BTreeSet<_> = quoted(labels).collect();
                    for group in labels.split(' ').filter(|word| word.starts_with('*')) {
                        let of_group =
                            groups.get(group).with_context(|| format!("{name}: no group {group}"))?;
                        all.extend(of_group.iter().cloned());
                    }
                    ensure!(*labels == "none" || !all.is_empty(), "{name}: labels, or none? {labels}");
                    let metric = Metric { kind: (*kind).to_owned(), labels: all };
                    ensure!(
                        metrics.insert(name.clone(), metric).is_none(),
                        "{name} stands twice in {DOCUMENT}"
                    );
                }
                _ => {}
            }
        }
        ensure!(!metrics.is_empty(), "{DOCUMENT} has no metrics in it");
        Ok(Self(metrics))
    }

    /// Labels of the series with this name; none if nobody has such.
    fn labels(&self, series: &str) -> Option<BTreeSet<&str>> {
        let targets = OF_TARGETS.into_iter();
        if let Some((_, labels)) = OF_OTHERS.iter().find(|(name, _)| *name == series) {
            return Some(targets.chain(labels.iter().copied()).collect());
        }
        let part = match series.rsplit_once('_') {
            Some((family, "bucket")) => Some((family, Some("le"))),
            Some((family, "sum" | "count")) => Some((family, None)),
            _ => None,
        };
        let of_histogram = part.and_then(|(family, more)| Some((self.0.get(family)?, more)));
        let (metric, more) = match of_histogram.filter(|(metric, _)| metric.kind == "histogram") {
            Some(found) => found,
            None => (self.0.get(series).filter(|metric| metric.kind != "histogram")?, None),
        };
        Some(targets.chain(metric.labels.iter().map(String::as_str)).chain(more).collect())
    }

    /// Fails if a query names what is not there. `recorded` are what rules record, with labels of their own.
    pub(super) fn check(&self, query: &str, recorded: &BTreeMap<String, BTreeSet<String>>) -> Result<()> {
        let names = promql::names(query)?;
        let mut known = BTreeSet::new();
        for (metric, asked) in &names.metrics {
            let labels = match recorded.get(metric) {
                Some(labels) => labels.iter().map(String::as_str).chain(OF_TARGETS).collect(),
                None => self
                    .labels(metric)
                    .with_context(|| format!("{metric} is no series of {DOCUMENT}, in {query}"))?,
            };
            for label in asked {
                ensure!(labels.contains(label.as_str()), "{metric} has no label {label}, in {query}");
            }
            known.extend(labels);
        }
        for label in &names.grouped {
            ensure!(known.contains(label.as_str()), "nothing in it has the label {label}: {query}");
        }
        if names.metrics.is_empty() {
            bail!("it asks for no metric: {query}");
        }
        Ok(())
    }
}

/// What stands between backticks.
fn quoted(text: &str) -> impl Iterator<Item = String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "| *pair* | `a` `b` |\n| `x_total` | counter | *pair* `c` | Things |\n| `z_count` | gauge | none | Few |\n\
                        | `y_seconds` | histogram | none | Time |\n";

    #[test]
    fn queries_are_held_to_the_rows() {
        let catalogue = Catalogue::parse(TEXT).unwrap();
        let recorded = BTreeMap::from([("r:s".to_owned(), BTreeSet::from(["by".to_owned()]))]);
        for good in [
            "sum by (a, job) (rate(x_total{b=\"1\", c=\"2\"}[5m]))",
            "histogram_quantile(0.9, sum by (le) (rate(y_seconds_bucket[5m])))",
            "rate(y_seconds_sum[5m]) / rate(y_seconds_count[5m])",
            "r:s{by=\"a\"}",
            "up{job=\"x\"} == 0",
            "z_count",
        ] {
            catalogue.check(good, &recorded).unwrap();
        }
        for bad in ["x", "x_total{d=\"1\"}", "sum by (d) (x_total)", "y_seconds", "x_total_bucket", "1 + 1"] {
            assert!(catalogue.check(bad, &recorded).is_err(), "{bad}");
        }
    }

    #[test]
    fn rows_that_say_nothing_are_refused() {
        for bad in ["| `x` | gauge | *pair* | y |", "| `x` | gauge | a | y |", "| `x` | gauge | none | |", ""]
        {
            assert!(Catalogue::parse(bad).is_err(), "{bad}");
        }
    }
}
