//! What a real Prometheus makes of two agents: every series is one that docs/metrics.md tells of, and what dashboards and Kiali ask
//! is answered.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{SocketAddr, UdpSocket};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use harness::inside::in_netns;
use harness::wait::eventually_ok;
use harness::wire::Station;
use netns_tests::prometheus::Prometheus;
use netns_tests::questions::{question, reply};
use netns_tests::{HTTP, LIMIT, SERVICE, WEB, World, at, ips};
use serde_json::Value;

const DOCUMENT: &str = include_str!("../../../docs/metrics.md");
const KIALI: &str = include_str!("../../../deploy/prometheus/kiali_queries.txt");
const DASHBOARDS: [&str; 3] = [
    include_str!("../../../deploy/helm/culvert/files/dashboards/capacity.json"),
    include_str!("../../../deploy/helm/culvert/files/dashboards/mesh.json"),
    include_str!("../../../deploy/helm/culvert/files/dashboards/node.json"),
];
/// What a panel says of itself if it need not show anything here: nothing is wrong, there is neither control plane nor installation,
/// and there is no kubelet.
const MAY_BE_EMPTY: [&str; 3] = ["Empty while", "Empty where", "Needs the kubelet"];
/// What Prometheus adds.
const OF_TARGETS: [&str; 2] = ["instance", "job"];
const METRICS: u16 = 15020;
const DNS: u16 = 53;
/// A counter's rate needs two scrapes, and there are many queries.
const ANSWERED: Duration = Duration::from_secs(60);

/// A row of the document.
struct Documented {
    kind: String,
    labels: BTreeSet<String>,
}

fn quoted(text: &str) -> BTreeSet<String> {
    text.split('`').skip(1).step_by(2).map(str::to_owned).collect()
}

fn documented() -> BTreeMap<String, Documented> {
    let (mut groups, mut rows) = (BTreeMap::new(), BTreeMap::new());
    for line in DOCUMENT.lines() {
        let cells: Vec<_> = line.trim_matches('|').split('|').map(str::trim).collect();
        match cells.as_slice() {
            [group, labels] if group.starts_with('*') => {
                groups.insert((*group).to_owned(), quoted(labels));
            }
            [name, kind @ ("counter" | "gauge" | "histogram"), labels, _] => {
                let of_groups = labels.split(' ').filter_map(|word| groups.get(word)).flatten().cloned();
                let labels = quoted(labels).into_iter().chain(of_groups).collect();
                let row = Documented { kind: (*kind).to_owned(), labels };
                rows.extend(quoted(name).pop_first().map(|name| (name, row)));
            }
            _ => {}
        }
    }
    rows
}

/// Traffic of each kind: in the mesh by service and by address, out of it and into it; names.
fn talk(world: &World, resolver: SocketAddr) -> Result<()> {
    for target in at(ips(WEB), SERVICE).into_iter().chain(at(world.plain.addresses(), HTTP)) {
        ensure!(world.client.get(target, "/")?.status == 200, "{target}");
    }
    for target in at(world.server.addresses(), HTTP) {
        ensure!(world.plain.get(target, "/")?.status == 200, "{target}");
    }
    let asked = world.client.inside(|| -> Result<usize> {
        let socket = UdpSocket::bind("0.0.0.0:0")?;
        socket.set_read_timeout(Some(LIMIT))?;
        socket.connect(resolver)?;
        socket.send(&question("scraped")?)?;
        Ok(socket.recv(&mut [0; 2048])?)
    })?;
    ensure!(asked? > 0, "the resolver says nothing");
    Ok(())
}

/// Answers queries until the test's process ends.
fn resolver(at: &Station) -> Result<SocketAddr> {
    let address = SocketAddr::new(at.addresses().0.into(), DNS);
    let socket = in_netns(&at.netns, || UdpSocket::bind(address))?.with_context(|| format!("{address}"))?;
    std::thread::spawn(move || {
        let mut buffer = [0; 2048];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let answer = reply(buffer.get(..length).unwrap_or_default(), "here");
            if answer.is_none_or(|answer| socket.send_to(&answer, from).is_err()) {
                return;
            }
        }
    });
    Ok(address)
}

/// The two agents, scraped: one in IPv4, one in IPv6.
fn scraped() -> Result<(Prometheus, World, SocketAddr)> {
    let world = World::new()?;
    let resolver = resolver(&world.outside)?;
    talk(&world, resolver)?;
    let [n1, n2] = &world.nodes;
    let targets = [
        SocketAddr::new(n1.addresses().0.into(), METRICS),
        SocketAddr::new(n2.addresses().1.into(), METRICS),
    ];
    let prometheus = Prometheus::start(&world.run, n1, &targets)?;
    Ok((prometheus, world, resolver))
}

#[test]
fn every_series_is_explained_and_documented() -> Result<()> {
    let (prometheus, _world, _) = scraped()?;
    let (documented, metadata) = (documented(), prometheus.metadata()?);
    let mut seen = BTreeSet::new();
    for series in prometheus.series()? {
        let labels = series.as_object().context("labels")?;
        let name = labels.get("__name__").and_then(Value::as_str).context("a name")?;
        if name == "up" || name.starts_with("scrape_") {
            continue;
        }
        let part = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
        let row = part.filter(|family| documented.contains_key(*family)).unwrap_or(name);
        let Documented { kind, labels: expected } =
            documented.get(row).with_context(|| format!("{name} is not in docs/metrics.md"))?;
        let own = |label: &str| !OF_TARGETS.contains(&label) && label != "__name__" && label != "le";
        let found: BTreeSet<_> = labels.keys().filter(|label| own(label)).cloned().collect();
        ensure!(found == *expected, "{name} has the labels {found:?}, and docs/metrics.md says {expected:?}");
        let family = if kind == "counter" { row.strip_suffix("_total").unwrap_or(row) } else { row };
        let said = metadata.get(family).and_then(|said| said.get(0));
        let said = |key: &str| said.and_then(|said| said.get(key)?.as_str()).unwrap_or_default();
        ensure!(said("type") == kind, "{name} is a {} and documented as a {kind}", said("type"));
        ensure!(!said("help").is_empty(), "{name} is not explained");
        seen.insert(row.to_owned());
    }
    // Otherwise what was looked at would not be much.
    for name in always() {
        ensure!(seen.contains(&name), "{name} is to be there always, and is not");
    }
    Ok(())
}

/// Rows that say that they are always there.
fn always() -> impl Iterator<Item = String> {
    let rows = DOCUMENT.lines().filter(|line| line.trim_end_matches(" |").ends_with(", always"));
    rows.filter_map(|row| quoted(row.split('|').nth(1)?).pop_first())
}

#[test]
fn dashboards_show_something() -> Result<()> {
    let (prometheus, world, resolver) = scraped()?;
    let mut asked = 0;
    for board in DASHBOARDS {
        let board: Value = serde_json::from_str(board)?;
        for panel in board.get("panels").and_then(Value::as_array).context("no panels")? {
            let about = panel.get("description").and_then(Value::as_str).unwrap_or_default();
            let may_be_empty = MAY_BE_EMPTY.iter().any(|reason| about.contains(reason));
            for target in panel.get("targets").and_then(Value::as_array).into_iter().flatten() {
                let query = target.get("expr").and_then(Value::as_str).context("no query")?;
                let query = query.replace("$__rate_interval", "1m");
                let query =
                    ["$instance", "$namespace"].iter().fold(query, |query, name| query.replace(name, ".*"));
                asked += 1;
                if may_be_empty {
                    // It is asked all the same: an error would be one.
                    prometheus.query(&query)?;
                    continue;
                }
                eventually_ok(&format!("an answer to {query}"), ANSWERED, || {
                    talk(&world, resolver)?;
                    ensure!(!prometheus.query(&query)?.is_empty(), "nothing");
                    Ok(())
                })?;
            }
        }
    }
    ensure!(asked > 50, "only {asked} queries");
    Ok(())
}

#[test]
fn kiali_finds_its_labels() -> Result<()> {
    let (prometheus, world, resolver) = scraped()?;
    let queries = KIALI.lines().filter(|line| !line.is_empty() && !line.starts_with('#'));
    for query in queries {
        // Nobody is in another namespace here.
        let may_be_empty = query.contains("source_workload_namespace!=\"demo\"");
        let grouped = query.rsplit_once(") by (").map(|(_, labels)| labels.trim_end_matches(')'));
        let grouped: Vec<_> = grouped.into_iter().flat_map(|labels| labels.split(',')).collect();
        eventually_ok(&format!("an answer to {query}"), ANSWERED, || {
            talk(&world, resolver)?;
            let found = prometheus.query(query)?;
            ensure!(may_be_empty || !found.is_empty(), "nothing");
            for sample in found {
                let metric = sample.get("metric").and_then(Value::as_object).context("no labels")?;
                if let Some(lacking) = grouped.iter().find(|label| !metric.contains_key(**label)) {
                    bail!("{lacking} is missing: {sample}");
                }
            }
            Ok(())
        })?;
    }
    Ok(())
}
