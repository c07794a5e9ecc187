//! Where the recorded mesh's connections go. Each row was tried against a real data plane; where ours means to differ,
//! the row says so.

use std::collections::BTreeSet;

use super::bookinfo;
use crate::testing::{check, ip, socket};
use crate::{Flow, HopKind, Route, Snapshot, plan};

/// All outcomes that chance may bring, each in one line.
fn outcomes(mesh: &Snapshot, from: &str, destination: &str) -> BTreeSet<String> {
    let (pod, address) = match from.split_once('@') {
        Some((pod, address)) => (pod, Some(ip(address))),
        None => (from, None),
    };
    let source = mesh.workloads().find(|workload| *workload.name == *pod).unwrap();
    let flow = |pick| Flow {
        source,
        source_address: address.unwrap_or_else(|| source.addresses[0]),
        destination: socket(destination),
        network: "",
        pick,
        exclude: &[],
    };
    (0..64)
        .map(|pick| match plan(mesh, &flow(pick)) {
            Err(refusal) => format!("refused: {refusal}"),
            Ok(Route::Passthrough { destination }) => format!("passthrough {destination}"),
            Ok(Route::Direct { destination, workload, .. }) => {
                format!("plain {destination} {}", workload.name)
            }
            Ok(Route::Tunnel { next_hop, authority, kind: HopKind::Workload, .. }) => {
                format!("tunnel {next_hop} {authority}")
            }
            Ok(Route::Tunnel { next_hop, authority, kind: HopKind::Waypoint, .. }) => {
                format!("waypoint {next_hop} {authority}")
            }
            Ok(Route::Resolve(name)) => format!("resolve {}:{}", name.hostname, name.port),
            Ok(other @ Route::DoubleTunnel { .. }) => format!("{other:?}"),
        })
        .collect()
}

/// Name, client, destination, every outcome there may be.
type Row = (&'static str, &'static str, &'static str, &'static [&'static str]);

const RECURSIVE: &str = "refused: attempted recursive call to ourselves: port 15008 is the mesh's own";

const ROWS: &[Row] = &[
    ("pod IP on the other node", "sleep", "10.1.1.11:9080", &["tunnel 10.1.1.11:15008 10.1.1.11:9080"]),
    ("pod IP on the same node", "sleep", "10.1.0.20:9080", &["tunnel 10.1.0.20:15008 10.1.0.20:9080"]),
    ("pod IPv6", "sleep", "[fd00:2::11]:9080", &["tunnel [fd00:2::11]:15008 [fd00:2::11]:9080"]),
    (
        "IPv4 VIP of a service of both families",
        "sleep",
        "10.96.62.180:80",
        &["tunnel 10.1.1.11:15008 10.1.1.11:9080"],
    ),
    (
        "IPv6 VIP of a service of both families",
        "sleep",
        "[fd00:96::94bc]:80",
        &["tunnel [fd00:2::11]:15008 [fd00:2::11]:9080"],
    ),
    (
        "a port nobody is known to listen on",
        "sleep",
        "10.1.1.11:7002",
        &["tunnel 10.1.1.11:15008 10.1.1.11:7002"],
    ),
    (
        "VIP with three endpoints",
        "sleep",
        "10.96.174.94:9080",
        &[
            "tunnel 10.1.0.20:15008 10.1.0.20:9080",
            "tunnel 10.1.1.21:15008 10.1.1.21:9080",
            "tunnel 10.1.1.22:15008 10.1.1.22:9080",
        ],
    ),
    (
        "VIP of a service that prefers the zone",
        "sleep",
        "10.96.42.98:9080",
        &["tunnel 10.1.0.20:15008 10.1.0.20:9080"],
    ),
    (
        "the same, of two in the client's zone",
        bookinfo::DETAILS,
        "10.96.42.98:9080",
        &["tunnel 10.1.1.21:15008 10.1.1.21:9080", "tunnel 10.1.1.22:15008 10.1.1.22:9080"],
    ),
    (
        "VIP of a service that prefers the node",
        "sleep",
        "10.96.235.66:9080",
        &["tunnel 10.1.0.20:15008 10.1.0.20:9080"],
    ),
    (
        "VIP with no healthy endpoint",
        "sleep",
        "10.96.147.139:80",
        &["refused: no healthy upstream: 10.96.147.139:80"],
    ),
    (
        "VIP whose only endpoint is unhealthy but allowed",
        "sleep",
        "10.96.193.66:80",
        &["tunnel 10.1.0.31:15008 10.1.0.31:8081"],
    ),
    ("an unhealthy pod by its IP", "sleep", "10.1.0.31:8081", &["tunnel 10.1.0.31:15008 10.1.0.31:8081"]),
    (
        "VIP, a port the service has not",
        "sleep",
        "10.96.71.134:1234",
        &["refused: no healthy upstream: 10.96.71.134:1234"],
    ),
    (
        "VIP of a service that is exported to its namespace, sent as public, from elsewhere",
        "cart-1",
        "10.96.200.186:9080",
        &["tunnel 10.1.1.12:15008 10.1.1.12:9080"],
    ),
    ("a pod outside the mesh", "sleep", "10.1.1.41:8080", &["plain 10.1.1.41:8080 outsider"]),
    // The other end would refuse it with the same words; we need not ask.
    ("the tunnel port of a pod", "sleep", "10.1.1.11:15008", &[RECURSIVE]),
    // These two are the application's here.
    ("port 15001 of a pod", "sleep", "10.1.1.11:15001", &["tunnel 10.1.1.11:15008 10.1.1.11:15001"]),
    ("port 15006 of a pod", "sleep", "10.1.1.11:15006", &["tunnel 10.1.1.11:15008 10.1.1.11:15006"]),
    ("own pod through its VIP", "sleep", "10.96.172.242:80", &["tunnel 10.1.0.30:15008 10.1.0.30:8080"]),
    (
        "own pod through its IPv6 VIP",
        "sleep@fd00:1::30",
        "[fd00:96::b5d3]:80",
        &["tunnel [fd00:1::30]:15008 [fd00:1::30]:8080"],
    ),
    ("loopback", "sleep", "127.0.0.1:8080", &["refused: the destination is a loopback address"]),
    ("an address outside", "sleep", "198.18.0.1:80", &["passthrough 198.18.0.1:80"]),
    (
        "VIP of a service entry with a machine in the mesh and a plain one",
        "sleep",
        "240.0.0.9:3306",
        &["plain 203.0.113.22:33060 mysql-vm2", "tunnel 203.0.113.21:15008 203.0.113.21:33061"],
    ),
    (
        "VIP of a service entry with inline endpoints, each with its own port",
        "sleep",
        "240.0.0.10:80",
        &["plain 203.0.113.31:8080 inline", "plain 203.0.113.32:80 inline"],
    ),
    (
        "VIP of a host that is known by name",
        "sleep",
        "240.240.0.1:443",
        &["resolve edge.external.example:443"],
    ),
    ("an address in a wildcard host's range", "sleep", "240.0.1.5:80", &["passthrough 240.0.1.5:80"]),
    ("any port in a wildcard host's range", "sleep", "240.0.1.5:4711", &["passthrough 240.0.1.5:4711"]),
    (
        "the IP of a pod on its node's network",
        bookinfo::DETAILS,
        "100.64.1.11:8080",
        &["passthrough 100.64.1.11:8080"],
    ),
    (
        "VIP of a slice without pods, one unhealthy",
        "sleep",
        "10.96.248.243:80",
        &["plain 198.51.100.7:8000 manual-1"],
    ),
    ("the IP of such a slice", "sleep", "198.51.100.7:80", &["passthrough 198.51.100.7:80"]),
    ("a pod with a waypoint, by IP", "sleep", "10.1.0.61:8080", &["waypoint 10.1.1.60:15008 10.1.0.61:8080"]),
    (
        "a service with a waypoint",
        "sleep",
        "10.96.153.165:80",
        &["waypoint 10.1.1.60:15008 10.96.153.165:80"],
    ),
    (
        "from a pod behind a waypoint to a service without",
        "cart-1",
        "10.96.71.134:9080",
        &["tunnel 10.1.1.11:15008 10.1.1.11:9080"],
    ),
    (
        "from the waypoint to the pod behind it",
        "shop-waypoint-abc12",
        "10.1.0.61:8080",
        &["tunnel 10.1.0.61:15008 10.1.0.61:8080"],
    ),
    (
        "from the waypoint to the service behind it",
        "shop-waypoint-abc12",
        "10.96.153.165:80",
        &["tunnel 10.1.0.61:15008 10.1.0.61:8080"],
    ),
    ("the waypoint's own pod", "sleep", "10.1.1.60:15021", &["plain 10.1.1.60:15021 shop-waypoint-abc12"]),
    (
        "VIP of the API server, whose endpoints are unknown",
        "sleep",
        "10.96.0.1:443",
        &["refused: no healthy upstream: 10.96.0.1:443"],
    ),
];

#[test]
fn the_recorded_connections_go_where_they_went() {
    let mesh = bookinfo::mesh();
    check(
        ROWS,
        |(name, ..)| name,
        |(_, from, destination, expected)| {
            let expected: BTreeSet<String> = expected.iter().map(ToString::to_string).collect();
            (outcomes(&mesh, from, destination), expected)
        },
    );
}

/// By weight 7 to 1: the machine in the mesh has capacity 7.
#[test]
fn a_service_entrys_weights_are_its_machines() {
    let mesh = bookinfo::mesh();
    let source = mesh.workload_of_pod("bookinfo", "sleep").unwrap();
    let plain = (0..8000)
        .filter(|pick| {
            let destination = socket("240.0.0.9:3306");
            let source_address = ip("10.1.0.30");
            let flow = Flow { source, source_address, destination, network: "", pick: *pick, exclude: &[] };
            matches!(plan(&mesh, &flow), Ok(Route::Direct { .. }))
        })
        .count();
    assert!((800..1200).contains(&plain), "{plain}");
}
