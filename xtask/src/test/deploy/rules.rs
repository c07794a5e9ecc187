//! The rules of Prometheus: what they ask for is there, each alert says what to do, and each is tested.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::Value;

use super::super::catalogue::Catalogue;
use super::text;
use super::tools::Tools;
use crate::shell;

const RULES: &str = "deploy/helm/culvert/files/rules.yaml";
const TESTS: &str = "deploy/prometheus/rules_test.yaml";
/// Where runbooks are.
const RUNBOOKS: &str = "docs/troubleshooting.md";
const SEVERITIES: [&str; 3] = ["critical", "warning", "info"];

/// What rules record, with the labels that the rule gives it.
pub(super) type Recorded = BTreeMap<String, BTreeSet<String>>;

/// Fails if a rule is wrong, or no test is about it; returns what is recorded.
pub(super) fn check(tools: &Tools, promtool: &Path, catalogue: &Catalogue) -> Result<Recorded> {
    let (file, tests) = (shell::root().join(RULES), shell::root().join(TESTS));
    shell::run(Command::new(promtool).args(["check", "rules"]).arg(&file))?;
    shell::run(Command::new(promtool).args(["test", "rules"]).arg(&tests))?;
    let rules = rules(&tools.parse(&file)?)?;
    let recorded = recorded(&rules);
    let sections = anchors(&std::fs::read_to_string(shell::root().join(RUNBOOKS)).context(RUNBOOKS)?);
    let fired = fired(&tools.parse(&tests)?);
    let mut alerts = 0;
    for rule in &rules {
        catalogue.check(text(rule, "/expr"), &recorded)?;
        let alert = text(rule, "/alert");
        if alert.is_empty() {
            continue;
        }
        alerts += 1;
        ensure!(SEVERITIES.contains(&text(rule, "/labels/severity")), "{alert} is of no severity");
        for said in ["/annotations/summary", "/annotations/description"] {
            ensure!(!text(rule, said).is_empty(), "{alert} has no {said}");
        }
        let link = text(rule, "/annotations/runbook_url");
        let section = link.strip_prefix(RUNBOOKS).and_then(|rest| rest.strip_prefix('#'));
        let is_there = section.is_some_and(|section| sections.contains(section));
        ensure!(is_there, "{alert}: no section of {RUNBOOKS} is {link}");
        ensure!(fired.contains(alert), "{alert} fires in no test of {TESTS}");
    }
    println!("  {alerts} alerts, each with a runbook, each seen to fire");
    Ok(recorded)
}

fn rules(documents: &Value) -> Result<Vec<Value>> {
    let groups = documents.pointer("/0/groups").and_then(Value::as_array).context("no groups")?;
    let of = |group: &Value| group.get("rules").and_then(Value::as_array).cloned().unwrap_or_default();
    Ok(groups.iter().flat_map(of).collect())
}

fn recorded(rules: &[Value]) -> Recorded {
    let mut recorded = Recorded::new();
    for rule in rules.iter().filter(|rule| !text(rule, "/record").is_empty()) {
        let labels = rule.get("labels").and_then(Value::as_object).into_iter().flatten();
        let labels = labels.map(|(name, _)| name.clone());
        recorded.entry(text(rule, "/record").to_owned()).or_default().extend(labels);
    }
    recorded
}

/// Alerts that a test expects to fire: in a list of alerts, or by the series that Prometheus makes of them.
fn fired(documents: &Value) -> BTreeSet<String> {
    let list =
        |value: &Value, key: &str| value.get(key).and_then(Value::as_array).cloned().unwrap_or_default();
    let mut fired = BTreeSet::new();
    for test in list(documents.pointer("/0").unwrap_or(&Value::Null), "tests") {
        for case in list(&test, "alert_rule_test") {
            if !list(&case, "exp_alerts").is_empty() {
                fired.insert(text(&case, "/alertname").to_owned());
            }
        }
        for case in list(&test, "promql_expr_test") {
            let about = text(&case, "/expr").split_once("ALERTS{alertname=\"").map(|(_, rest)| rest);
            let alert = about.and_then(|rest| rest.split('"').next());
            fired.extend(alert.filter(|_| !list(&case, "exp_samples").is_empty()).map(str::to_owned));
        }
    }
    fired
}

/// What links to the headings of a document say.
pub(in crate::test) fn anchors(document: &str) -> BTreeSet<String> {
    let mut fenced = false;
    let mut anchors = BTreeSet::new();
    for line in document.lines() {
        fenced ^= line.starts_with("```");
        let heading = line.trim_start_matches('#');
        if !fenced && heading.len() < line.len() && heading.starts_with(' ') {
            anchors.insert(anchor(heading.trim()));
        }
    }
    anchors
}

fn anchor(heading: &str) -> String {
    let kept = heading
        .to_lowercase()
        .chars()
        .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
        .collect::<String>();
    kept.replace(' ', "-")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headings_become_anchors() {
        let document = "# One, two\n```\n# no heading\n```\n## `/config_dump` of it\n#none\n";
        let expected = ["one-two", "config_dump-of-it"].map(str::to_owned);
        assert_eq!(anchors(document), BTreeSet::from(expected));
    }
}
