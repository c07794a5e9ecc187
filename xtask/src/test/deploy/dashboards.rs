//! The dashboards of Grafana, and what Kiali asks: each query is one, and names metrics and labels that the agent has.
//!
//! That queries return something is seen where agents run, in `tests/netns/tests/scraped.rs`.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;

use anyhow::{Context as _, Result, ensure};
use serde_json::{Value, json};

use super::super::catalogue::Catalogue;
use super::rules::Recorded;
use super::{CHART, text};
use crate::binaries::target_dir;
use crate::shell;

const KIALI: &str = "deploy/prometheus/kiali_queries.txt";
/// What there is, by uid.
const DASHBOARDS: [&str; 3] = ["culvert-capacity", "culvert-mesh", "culvert-node"];
/// Grafana's variables, and what they may be.
const VARIABLES: [(&str, &str); 3] = [("$__rate_interval", "5m"), ("$instance", ".*"), ("$namespace", ".*")];

/// Fails if a dashboard is wrong or asks for what is not there.
pub(super) fn check(promtool: &Path, catalogue: &Catalogue, recorded: &Recorded) -> Result<()> {
    let mut queries = BTreeMap::new();
    let mut uids = Vec::new();
    let directory = shell::root().join(CHART).join("files/dashboards");
    for entry in std::fs::read_dir(&directory).with_context(|| directory.display().to_string())? {
        let path = entry?.path();
        let about = || path.display().to_string();
        let board: Value = serde_json::from_str(&std::fs::read_to_string(&path)?).with_context(about)?;
        uids.push(text(&board, "/uid").to_owned());
        of_dashboard(&board, &mut queries).with_context(about)?;
    }
    uids.sort();
    ensure!(uids == DASHBOARDS, "there are the dashboards {uids:?}, and this test knows {DASHBOARDS:?}");
    let boards = queries.len();
    let kiali = std::fs::read_to_string(shell::root().join(KIALI)).context(KIALI)?;
    for line in kiali.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        queries.insert(format!("Kiali {}", queries.len()), line.to_owned());
    }
    ensure!(queries.len() > boards, "{KIALI} has no queries");
    for (whose, query) in &queries {
        catalogue.check(query, recorded).with_context(|| whose.clone())?;
    }
    parse(promtool, &queries)?;
    println!("  {} queries of dashboards and Kiali ask for what is there", queries.len());
    Ok(())
}

/// Takes the queries of a dashboard: of its panels, and of its variables.
fn of_dashboard(board: &Value, queries: &mut BTreeMap<String, String>) -> Result<()> {
    let list = |pointer: &str| board.pointer(pointer).and_then(Value::as_array).cloned().unwrap_or_default();
    let title = text(board, "/title");
    let mut ids = BTreeSet::new();
    for panel in list("/panels") {
        let name = format!("{title}: {}", text(&panel, "/title"));
        ensure!(ids.insert(panel.get("id").and_then(Value::as_u64)), "{name}: its id is another one's, too");
        if text(&panel, "/type") == "row" {
            continue;
        }
        ensure!(!text(&panel, "/description").is_empty(), "{name}: nobody says what it shows");
        let targets = panel.get("targets").and_then(Value::as_array).context("no targets")?;
        ensure!(!targets.is_empty(), "{name}: it shows nothing");
        for target in targets {
            ensure!(
                text(target, "/datasource/uid") == "${datasource}",
                "{name}: its source is fixed, and not the dashboard's"
            );
            let key = format!("{name} {}", text(target, "/refId"));
            let query = filled(text(target, "/expr"))?;
            ensure!(queries.insert(key.clone(), query).is_none(), "there are two {key}");
        }
    }
    for variable in list("/templating/list") {
        if text(&variable, "/type") != "query" {
            continue;
        }
        let (name, asked) = (text(&variable, "/name"), text(&variable, "/definition"));
        let inner = asked.strip_prefix("label_values(").and_then(|rest| rest.strip_suffix(')'));
        let (selector, label) = inner
            .and_then(|inner| inner.rsplit_once(','))
            .with_context(|| format!("{title}: ${name} is no label_values(SERIES, LABEL): {asked}"))?;
        let query = format!("count by ({}) ({selector})", label.trim());
        queries.insert(format!("{title}: ${name}"), query);
    }
    Ok(())
}

/// A query with something in place of its variables.
fn filled(query: &str) -> Result<String> {
    let mut filled = query.to_owned();
    for (variable, value) in VARIABLES {
        filled = filled.replace(variable, value);
    }
    ensure!(!filled.contains('$'), "a variable that nobody sets: {query}");
    Ok(filled)
}

/// promtool reads queries in rules alone.
fn parse(promtool: &Path, queries: &BTreeMap<String, String>) -> Result<()> {
    let rules: Vec<_> = queries
        .values()
        .enumerate()
        .map(|(number, query)| json!({ "record": format!("query:{number}"), "expr": query }))
        .collect();
    let file = target_dir()?.join("deploy/queries.json");
    std::fs::create_dir_all(file.parent().context("a file without a directory")?)?;
    let groups = json!({ "groups": [{ "name": "queries", "rules": rules }] });
    std::fs::write(&file, groups.to_string()).with_context(|| file.display().to_string())?;
    shell::run(Command::new(promtool).args(["check", "rules"]).arg(&file))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn variables_are_filled_in_and_none_is_left() {
        assert_eq!(filled("rate(a{b=~\"$instance\"}[$__rate_interval])").unwrap(), "rate(a{b=~\".*\"}[5m])");
        assert!(filled("a{b=\"$other\"}").is_err());
    }

    #[test]
    fn a_panel_that_says_nothing_is_refused() {
        let panel = json!({ "id": 1, "type": "stat", "title": "t", "targets": [] });
        let board = |panel: &Value| json!({ "title": "b", "panels": [panel] });
        let mut queries = BTreeMap::new();
        assert!(of_dashboard(&board(&panel), &mut queries).is_err(), "no description");
        let mut panel = panel;
        panel["description"] = json!("d");
        assert!(of_dashboard(&board(&panel), &mut queries).is_err(), "no targets");
        panel["targets"] = json!([{ "refId": "A", "expr": "up", "datasource": { "uid": "x" } }]);
        assert!(of_dashboard(&board(&panel), &mut queries).is_err(), "a fixed source");
        panel["targets"][0]["datasource"]["uid"] = json!("${datasource}");
        of_dashboard(&board(&panel), &mut queries).unwrap();
        assert_eq!(queries, BTreeMap::from([("b: t A".to_owned(), "up".to_owned())]));
    }
}
