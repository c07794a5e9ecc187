//! The dashboards of `deploy/`, filled by a real Prometheus that scrapes the agents.
//!
//! Grafana itself is not there: layout, titles, units and queries are the dashboard's, the answers are Prometheus', and the lines are
//! drawn by `boards.html`, which says so at its foot.

use std::net::SocketAddr;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, Result};
use netns_tests::World;
use netns_tests::prometheus::Prometheus;
use serde_json::{Value, json};

const METRICS: u16 = 15020;
/// Between two points of a line.
const STEP: Duration = Duration::from_secs(2);
const TEMPLATE: &str = include_str!("boards.html");
const BOARDS: [(&str, &str); 3] = [
    ("node", include_str!("../../../../../deploy/helm/culvert/files/dashboards/node.json")),
    ("mesh", include_str!("../../../../../deploy/helm/culvert/files/dashboards/mesh.json")),
    ("capacity", include_str!("../../../../../deploy/helm/culvert/files/dashboards/capacity.json")),
];

/// Scrapes both agents from now on.
pub(crate) fn scrape(world: &World) -> Result<Prometheus> {
    let [n1, n2] = &world.nodes;
    let targets = [
        SocketAddr::new(n1.addresses().0.into(), METRICS),
        SocketAddr::new(n2.addresses().1.into(), METRICS),
    ];
    Prometheus::start(&world.run, n1, &targets)
}

/// Each dashboard's name, and its page.
pub(crate) fn pages(prometheus: &Prometheus, past: Duration) -> Result<Vec<(&'static str, String)>> {
    let until = SystemTime::now().duration_since(UNIX_EPOCH)?;
    let since = until.saturating_sub(past);
    let page = |(name, board): (&'static str, &str)| -> Result<(&'static str, String)> {
        let mut board: Value = serde_json::from_str(board)?;
        let panels = board.get_mut("panels").and_then(Value::as_array_mut).context("no panels")?;
        for target in panels.iter_mut().filter_map(|panel| panel.get_mut("targets")?.as_array_mut()).flatten()
        {
            let query = target.get("expr").and_then(Value::as_str).context("no query")?;
            let query = query.replace("$__rate_interval", "20s");
            let query =
                ["$instance", "$namespace"].iter().fold(query, |query, name| query.replace(name, ".*"));
            let is_instant = target.get("instant") == Some(&Value::Bool(true));
            let answer = if is_instant {
                prometheus.query(&query)?
            } else {
                prometheus.range(&query, since, until, STEP)?
            };
            if let Some(fields) = target.as_object_mut() {
                fields.insert("answer".to_owned(), Value::Array(answer));
            }
        }
        let data = json!({ "board": board, "since": since.as_secs(), "until": until.as_secs() });
        // Nothing in it may end the element that it stands in.
        let data = data.to_string().replace("</", "<\\/");
        Ok((name, TEMPLATE.replace("DATA", &data)))
    };
    BOARDS.into_iter().map(page).collect()
}
