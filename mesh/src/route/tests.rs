use super::*;
use crate::service::{
    HealthPolicy, IpFamilies, LoadBalancer, LoadBalancerMode, Scope, Visibility, WeightedWaypoint,
};
use crate::testing::{
    gateway_by_address, gateway_by_host, ip, pod, ports, service, snapshot, socket, tcp_pod,
};
use crate::workload::{Health, Locality, NetworkMode};

mod balancing;
mod networks;
mod steps;
mod waypoints;

/// The pod that connects: 10.0.0.1 and fd00::1, in r1/z1/s1, on node n1.
fn client() -> Workload {
    placed(pod("client", &["10.0.0.1", "fd00::1"]), "r1/z1/s1", "n1")
}

fn placed(workload: Workload, place: &str, node: &str) -> Workload {
    let mut parts = place.split('/').map(Arc::from);
    let mut next = || parts.next().unwrap_or_else(|| Arc::from(""));
    let locality = Locality { region: next(), zone: next(), subzone: next() }.into();
    Workload { locality, node: node.into(), ..workload }
}

fn go_as(mesh: &Snapshot, source: &Workload, destination: &str, pick: u64) -> Result<Route, Refusal> {
    go_without(mesh, source, destination, pick, &[])
}

/// As [`go_as`], after these workloads were tried in vain.
fn go_without(
    mesh: &Snapshot,
    source: &Workload,
    destination: &str,
    pick: u64,
    exclude: &[Arc<str>],
) -> Result<Route, Refusal> {
    let flow = Flow {
        source,
        source_address: source.addresses[0],
        destination: socket(destination),
        network: "",
        pick,
        exclude,
    };
    plan(mesh, &flow)
}

fn go(mesh: &Snapshot, destination: &str) -> Result<Route, Refusal> {
    go_as(mesh, &client(), destination, 1)
}

/// A route or refusal in one line.
fn told(outcome: &Result<Route, Refusal>) -> String {
    match outcome {
        Err(refusal) => format!("refused: {refusal}"),
        Ok(Route::Passthrough { destination }) => format!("passthrough {destination}"),
        Ok(Route::Direct { destination, .. }) => format!("direct {destination}"),
        Ok(Route::Tunnel { next_hop, authority, kind, .. }) => {
            format!("{kind:?} {next_hop} for {authority}").to_lowercase()
        }
        Ok(Route::DoubleTunnel { next_hop, authority, kind, .. }) => {
            format!("double {kind:?} {next_hop} for {authority}").to_lowercase()
        }
        Ok(Route::Resolve(unresolved)) => format!("resolve {}:{}", unresolved.hostname, unresolved.port),
    }
}

fn identity(account: &str) -> String {
    format!("spiffe://cluster.local/ns/default/sa/{account}")
}

#[test]
fn where_connections_go() {
    let host = Workload { network_mode: NetworkMode::HostNetwork, ..tcp_pod("host", &["192.0.2.1"]) };
    let passthrough = LoadBalancer { mode: LoadBalancerMode::Passthrough, ..LoadBalancer::default() };
    let wild = Service {
        cidr_vips: vec!["/240.0.1.0/24".parse().unwrap()],
        load_balancer: passthrough,
        ..service("wild", &[])
    };
    let mesh = snapshot(
        [
            client().serving("own", [(80, 8080)]),
            pod("web", &["10.0.0.2", "fd00::2"]).serving("web", [(80, 8080)]).serving("ranged", [(80, 81)]),
            pod("recursive", &["10.0.0.5"]).serving("recursive", [(80, HBONE_PORT)]),
            tcp_pod("plain", &["10.0.0.3"]).serving("plain", [(80, 8080)]),
            host.serving("host", [(80, 8080)]),
            Workload { hostname: "edge.example".into(), ..tcp_pod("edge", &[]) }.serving("edge", [(80, 443)]),
            Workload { status: Health::Unhealthy, ..pod("sick", &["10.0.0.4"]) }.serving("sick", [(80, 80)]),
        ],
        [
            service("own", &["/10.1.0.1"]),
            Service { ports: ports([(80, HBONE_PORT)]), ..service("recursive", &["/10.1.0.9"]) },
            service("web", &["/10.1.0.2", "/fd01::2"]),
            service("plain", &["/10.1.0.3"]),
            service("host", &["/10.1.0.4"]),
            service("edge", &["/10.1.0.5"]),
            service("sick", &["/10.1.0.6"]),
            service("empty", &["/10.1.0.7"]),
            Service {
                visibility: Visibility::Namespace,
                namespace: "elsewhere".into(),
                ..service("private", &["/10.1.0.8"])
            },
            Service { cidr_vips: vec!["/240.0.2.0/24".parse().unwrap()], ..service("ranged", &[]) },
            wild,
        ],
        [],
    );
    for (about, destination, expected) in [
        ("unknown", "198.51.100.1:443", "passthrough 198.51.100.1:443"),
        ("unknown, mapped", "[::ffff:198.51.100.1]:443", "passthrough 198.51.100.1:443"),
        ("loopback", "127.0.0.1:80", "refused: the destination is a loopback address"),
        ("loopback, v6", "[::1]:80", "refused: the destination is a loopback address"),
        ("loopback, mapped", "[::ffff:127.9.9.9]:80", "refused: the destination is a loopback address"),
        (
            "the tunnel's port",
            "10.0.0.2:15008",
            "refused: attempted recursive call to ourselves: port 15008 is the mesh's own",
        ),
        (
            "the tunnel's port, anywhere",
            "198.51.100.1:15008",
            "refused: attempted recursive call to ourselves: port 15008 is the mesh's own",
        ),
        ("the app's port 15001", "10.0.0.2:15001", "workload 10.0.0.2:15008 for 10.0.0.2:15001"),
        ("a pod in the mesh", "10.0.0.2:9080", "workload 10.0.0.2:15008 for 10.0.0.2:9080"),
        ("a pod in the mesh, v6", "[fd00::2]:9080", "workload [fd00::2]:15008 for [fd00::2]:9080"),
        ("a pod outside the mesh", "10.0.0.3:9080", "direct 10.0.0.3:9080"),
        ("an unhealthy pod by address", "10.0.0.4:9080", "workload 10.0.0.4:15008 for 10.0.0.4:9080"),
        ("a host-network pod by address", "192.0.2.1:80", "passthrough 192.0.2.1:80"),
        ("own pod by a VIP", "10.1.0.1:80", "workload 10.0.0.1:15008 for 10.0.0.1:8080"),
        ("a VIP", "10.1.0.2:80", "workload 10.0.0.2:15008 for 10.0.0.2:8080"),
        ("a VIP, v6", "[fd01::2]:80", "workload [fd00::2]:15008 for [fd00::2]:8080"),
        ("a VIP, mapped", "[::ffff:10.1.0.2]:80", "workload 10.0.0.2:15008 for 10.0.0.2:8080"),
        ("a VIP of a pod outside the mesh", "10.1.0.3:80", "direct 10.0.0.3:8080"),
        ("a VIP of a host-network pod", "10.1.0.4:80", "direct 192.0.2.1:8080"),
        ("a VIP of a name", "10.1.0.5:80", "resolve edge.example:443"),
        ("a VIP, all unhealthy", "10.1.0.6:80", "refused: no healthy upstream: 10.1.0.6:80"),
        ("a VIP without endpoints", "10.1.0.7:80", "refused: no healthy upstream: 10.1.0.7:80"),
        ("an unknown port of a VIP", "10.1.0.2:1234", "refused: no healthy upstream: 10.1.0.2:1234"),
        ("a VIP that is private elsewhere", "10.1.0.8:80", "passthrough 10.1.0.8:80"),
        (
            "a VIP that means the tunnel's port",
            "10.1.0.9:80",
            "refused: attempted recursive call to ourselves: port 15008 is the mesh's own",
        ),
        ("an unknown port in a range", "240.0.2.9:81", "refused: no healthy upstream: 240.0.2.9:81"),
        ("a pod in the mesh, mapped", "[::ffff:10.0.0.2]:80", "workload 10.0.0.2:15008 for 10.0.0.2:80"),
        ("a range of VIPs", "240.0.2.9:80", "workload 10.0.0.2:15008 for 10.0.0.2:81"),
        ("a range that is left alone", "240.0.1.5:443", "passthrough 240.0.1.5:443"),
    ] {
        assert_eq!(told(&go(&mesh, destination)), expected, "{about}");
    }
}

#[test]
fn a_peer_may_show_the_workloads_identity_or_the_services() {
    let extra = vec![identity("extra").into(), identity("web").into()];
    let mesh = snapshot(
        [pod("web", &["10.0.0.2"]).serving("web", [(80, 8080)])],
        [Service { subject_alt_names: extra, ..service("web", &["/10.1.0.2"]) }],
        [],
    );
    for (destination, expected, by_service) in [
        ("10.1.0.2:80", vec![identity("web"), identity("extra")], true),
        ("10.0.0.2:80", vec![identity("web")], false),
    ] {
        let Ok(Route::Tunnel { accepted, service, workload, .. }) = go(&mesh, destination) else {
            panic!("not a tunnel")
        };
        assert_eq!(accepted, expected);
        assert_eq!(service.is_some(), by_service);
        assert_eq!(&*workload.name, "web");
    }
}

#[test]
fn a_name_that_was_resolved() {
    let edge = |protocol| Workload { hostname: "edge.example".into(), protocol, ..pod("edge", &[]) };
    for (protocol, expected) in [
        (Protocol::Tcp, "direct 203.0.113.9:443"),
        (Protocol::Hbone, "workload 203.0.113.9:15008 for 203.0.113.9:443"),
    ] {
        let mesh = snapshot(
            [edge(protocol).serving("edge", [(80, 443)])],
            [service("edge", &["/10.1.0.5", "/fd01::5"])],
            [],
        );
        let Ok(Route::Resolve(unresolved)) = go(&mesh, "10.1.0.5:80") else { panic!("not by name") };
        let answers = [ip("fd00::9"), ip("203.0.113.9")];
        assert_eq!(unresolved.choose(&answers, 7), Some(answers[1]));
        assert_eq!(unresolved.choose(&answers[..1], 7), Some(answers[0]));
        assert_eq!(unresolved.choose(&[], 7), None);
        assert_eq!(told(&unresolved.at(answers[1])), expected);
        let Ok(Route::Resolve(unresolved)) = go(&mesh, "[fd01::5]:80") else { panic!("not by name") };
        assert_eq!(unresolved.choose(&answers, 7), Some(answers[0]));
    }
}
