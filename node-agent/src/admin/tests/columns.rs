//! Every column that `istioctl ztunnel-config` prints can be filled from our dump: its tables, as recorded, made again from
//! the fields that it reads.

use super::*;

/// The lines of a recorded table, cells apart, sorted. Columns are as wide as in the heading, for cells may be empty.
fn recorded(table: &str) -> Vec<Vec<String>> {
    let table = recordings::text(&format!("istiod/agent/istioctl_{table}.txt")).unwrap();
    let heading = table.lines().next().unwrap();
    // A column begins where a word does, unless that goes on a heading of two words.
    let mut starts: Vec<usize> = Vec::new();
    for name in heading_names(heading) {
        starts.push(heading.find(name).unwrap());
    }
    let cells = |line: &str| {
        let ends = starts.iter().skip(1).copied().chain([line.len()]);
        starts
            .iter()
            .zip(ends)
            .map(|(start, end)| line.get(*start..end.min(line.len())).unwrap_or("").trim().to_owned())
            .collect()
    };
    let mut rows: Vec<Vec<String>> = table.lines().skip(1).map(cells).collect();
    rows.sort();
    rows
}

fn heading_names(heading: &str) -> Vec<&str> {
    let known = [
        "NAMESPACE",
        "POD NAME",
        "SERVICE NAME",
        "POLICY NAME",
        "ADDRESS",
        "NODE",
        "SERVICE VIP",
        "ENDPOINTS",
        "WAYPOINT",
        "PROTOCOL",
        "ACTION",
        "SCOPE",
    ];
    let mut found: Vec<&str> = known.into_iter().filter(|name| heading.contains(name)).collect();
    found.sort_by_key(|name| heading.find(name));
    found
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// The name of a waypoint as tables have it: the first label of its host, or its address.
fn waypoint(of: &Value) -> String {
    let Some(destination) = of["waypoint"]["destination"].as_str() else { return "None".to_owned() };
    let name = destination.split_once('/').unwrap().1;
    name.split_once('.').map_or(name, |(first, _)| first).to_owned()
}

fn rows(list: &Value, row: impl Fn(&Value) -> Vec<String>) -> Vec<Vec<String>> {
    let mut rows: Vec<_> = list.as_array().unwrap().iter().map(row).collect();
    rows.sort();
    rows
}

#[tokio::test]
async fn workloads() {
    let dump = World::start(&cluster()).await.dump().await;
    let row = |one: &Value| {
        let ips: Vec<String> = one["workloadIps"].as_array().unwrap().iter().map(text).collect();
        let address = if ips.is_empty() { text(&one["hostname"]) } else { ips.join(",") };
        vec![
            text(&one["namespace"]),
            text(&one["name"]),
            address,
            text(&one["node"]),
            waypoint(one),
            text(&one["protocol"]),
        ]
    };
    assert_eq!(rows(&dump["workloads"], row), recorded("workload"));
}

#[tokio::test]
async fn services() {
    let dump = World::start(&cluster()).await.dump().await;
    let row = |one: &Value| {
        let vips: Vec<String> = one["vips"]
            .as_array()
            .unwrap()
            .iter()
            .map(|vip| text(vip).split_once('/').unwrap().1.to_owned())
            .collect();
        let endpoints = one["endpoints"].as_object().unwrap();
        let healthy = endpoints.values().filter(|endpoint| endpoint["status"] == "Healthy").count();
        let count = format!("{healthy}/{}", endpoints.len());
        vec![text(&one["namespace"]), text(&one["name"]), vips.join(","), waypoint(one), count]
    };
    assert_eq!(rows(&dump["services"], row), recorded("service"));
}

#[tokio::test]
async fn policies() {
    let dump = World::start(&cluster()).await.dump().await;
    let row = |one: &Value| ["namespace", "name", "action", "scope"].map(|key| text(&one[key])).to_vec();
    assert_eq!(rows(&dump["policies"], row), recorded("policy"));
}

/// Name, type, status, whether it is valid now, number in hexadecimal, end and beginning.
#[tokio::test]
async fn certificates() {
    use base64::Engine as _;
    let dump = World::start(&cluster()).await.dump().await;
    let list = dump["certificates"].as_array().unwrap();
    let states: Vec<String> = list.iter().map(|one| text(&one["state"])).collect();
    assert_eq!(&states[1..], ["Initializing", "Available"]);
    assert!(states[0].starts_with("Unavailable: "), "{states:?}");
    let there = &list[2];
    assert_eq!(there["identity"], "spiffe://cluster.local/ns/bookinfo/sa/sleep");
    for kind in ["certChain", "rootCerts"] {
        let part = &there[kind][0];
        let number: u128 = text(&part["serialNumber"]).parse().unwrap_or(u128::MAX);
        assert_ne!(number, 0, "{kind}");
        let (from, to) = (text(&part["validFrom"]), text(&part["expirationTime"]));
        assert!(from < to && from.len() == "2026-01-01T00:00:00Z".len(), "{kind}: {from} {to}");
        let pem = base64::engine::general_purpose::STANDARD.decode(text(&part["pem"])).unwrap();
        assert!(pem.starts_with(b"-----BEGIN CERTIFICATE-----\n"), "{kind}");
    }
}

/// Pod, direction, both ends, and how it is carried.
#[tokio::test]
async fn connections() {
    let dump = World::start(&cluster()).await.dump().await;
    let mut rows = Vec::new();
    for pod in dump["workloadState"].as_object().unwrap().values() {
        let name = format!("{}.{}", text(&pod["info"]["name"]), text(&pod["info"]["namespace"]));
        for direction in ["inbound", "outbound"] {
            for one in pod["connections"][direction].as_array().unwrap() {
                rows.push(
                    [
                        &name,
                        direction,
                        &text(&one["src"]),
                        &text(&one["originalDst"]),
                        &text(&one["actualDst"]),
                        &text(&one["protocol"]),
                    ]
                    .map(str::to_owned),
                );
            }
        }
    }
    assert_eq!(
        rows,
        [
            ["sleep.bookinfo", "inbound", "[fd00:1::9]:16328", "", "[fd00:1::30]:8080", "TCP"],
            [
                "sleep.bookinfo",
                "outbound",
                "10.1.0.30:47498",
                "10.96.213.85:9080",
                "10.1.1.22:15008",
                "HBONE"
            ],
        ]
    );
}
