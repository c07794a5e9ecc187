use super::*;
use crate::service::WeightedWaypoint;
use crate::testing::{
    check, gateway_by_address, gateway_by_host, ip, key, pod, ports, service, snapshot, socket,
};
use crate::workload::TunnelProtocol;

fn mesh() -> Snapshot {
    let waypoint = pod("waypoint", &["10.0.0.60"]).serving("waypoint", [(15008, 15008)]);
    let fronted =
        Workload { waypoint: Some(gateway_by_address("/10.0.0.60").into()), ..pod("cart", &["10.0.0.61"]) };
    let by_host =
        Service { waypoint: Some(gateway_by_host("waypoint").into()), ..service("shop", &["/10.1.0.2"]) };
    let named = Service { ports: ports([(80, 8080), (81, 0), (82, 0)]), ..service("web", &["/10.1.0.1"]) };
    let part = vec![WeightedWaypoint { destination: gateway_by_host("waypoint"), weight: 1 }];
    let canary = Service { weighted_waypoints: part, ..service("canary", &["/10.1.0.3"]) };
    let web = pod("web", &["10.0.0.1", "fd00::1"])
        .serving("web", [(80, 9090), (81, 0)])
        .serving("hbone", [(80, 15008)]);
    let waypoint_service = Service { ports: ports([(15008, 15008)]), ..service("waypoint", &["/10.1.0.60"]) };
    snapshot([waypoint, fronted, web], [by_host, named, canary, waypoint_service], [])
}

fn ask(local: &str, connected: &str, authority: &str) -> Result<String, String> {
    let mesh = mesh();
    let local = mesh.workload_of_pod("default", local).unwrap();
    destination(&mesh, local, socket(connected), &authority.parse().unwrap())
        .map(|target| target.to_string())
        .map_err(|refusal| refusal.to_string())
}

/// Name, the workload it arrived at, the address it arrived at, what it asks for, what becomes of it.
type Row = (&'static str, &'static str, &'static str, &'static str, Result<&'static str, &'static str>);

const OWN: Result<&str, &str> = Err("attempted recursive call to ourselves");
const WEB: (&str, &str) = ("web", "10.0.0.1:15008");
const WP: (&str, &str) = ("waypoint", "10.0.0.60:15008");

const fn at(
    name: &'static str,
    (local, connected): (&'static str, &'static str),
    authority: &'static str,
    outcome: Result<&'static str, &'static str>,
) -> Row {
    (name, local, connected, authority, outcome)
}

const ROWS: &[Row] = &[
    at("its own address", WEB, "10.0.0.1:80", Ok("10.0.0.1:80")),
    at("its own address, mapped", WEB, "[::ffff:10.0.0.1]:80", Ok("10.0.0.1:80")),
    at("port 15001, which is the application's", WEB, "10.0.0.1:15001", Ok("10.0.0.1:15001")),
    at("port 15006, which is the application's", WEB, "10.0.0.1:15006", Ok("10.0.0.1:15006")),
    at("the tunnel's port", WEB, "10.0.0.1:15008", OWN),
    at(
        "another address",
        WEB,
        "10.0.0.2:80",
        Err("the tunnel arrived at 10.0.0.1:15008 but asks for 10.0.0.2:80, which is not served there"),
    ),
    at(
        "its other address, which this tunnel did not arrive at",
        WEB,
        "[fd00::1]:80",
        Err("the tunnel arrived at 10.0.0.1:15008 but asks for [fd00::1]:80, which is not served there"),
    ),
    at("its other address, arrived there", ("web", "[fd00::1]:15008"), "[fd00::1]:80", Ok("[fd00::1]:80")),
    at(
        "its service's host, arrived at IPv6",
        ("web", "[fd00::1]:15008"),
        "web.example:80",
        Ok("[fd00::1]:9090"),
    ),
    at(
        "a workload behind somebody else's waypoint",
        WEB,
        "10.0.0.61:80",
        Err("the tunnel arrived at 10.0.0.1:15008 but asks for 10.0.0.61:80, which is not served there"),
    ),
    at(
        "its own service's VIP, which is no address of it",
        WEB,
        "10.1.0.1:80",
        Err("the tunnel arrived at 10.0.0.1:15008 but asks for 10.1.0.1:80, which is not served there"),
    ),
    at("its service's host: its own port for it", WEB, "web.example:80", Ok("10.0.0.1:9090")),
    at("its service's host in capitals", WEB, "WEB.Example:80", Ok("10.0.0.1:9090")),
    at("its service's host, no port said by either", WEB, "web.example:81", Ok("10.0.0.1:81")),
    at(
        "its service's host, a port that it does not serve",
        WEB,
        "web.example:82",
        Err("service web.example has no port 82 at this workload"),
    ),
    at("a service that means the tunnel's port", WEB, "hbone.example:80", OWN),
    at("a service it has not", WEB, "shop.example:80", Err("the workload does not serve shop.example")),
    at("nobody's host", WEB, "nobody.example:80", Err("the workload does not serve nobody.example")),
    at("a waypoint: a workload that it fronts, by address", WP, "10.0.0.61:8080", Ok("10.0.0.60:8080")),
    at("a waypoint: a service that it fronts, by VIP", WP, "10.1.0.2:80", Ok("10.0.0.60:80")),
    at("a waypoint: a service that it fronts, by host", WP, "shop.example:80", Ok("10.0.0.60:80")),
    at("a waypoint: a service that it fronts in part", WP, "canary.example:80", Ok("10.0.0.60:80")),
    at("a waypoint: the VIP of such a service", WP, "10.1.0.3:80", Ok("10.0.0.60:80")),
    at("a waypoint: the tunnel's port of what it fronts", WP, "10.0.0.61:15008", OWN),
    at(
        "a waypoint: a service that it does not front",
        WP,
        "10.1.0.1:80",
        Err("the tunnel arrived at 10.0.0.60:15008 but asks for 10.1.0.1:80, which is not served there"),
    ),
    at(
        "a waypoint: a workload that it does not front",
        WP,
        "10.0.0.1:80",
        Err("the tunnel arrived at 10.0.0.60:15008 but asks for 10.0.0.1:80, which is not served there"),
    ),
    at("a waypoint: somebody's host", WP, "web.example:80", Err("the workload does not serve web.example")),
];

#[test]
fn what_a_tunnel_may_ask_for() {
    check(
        ROWS,
        |(name, ..)| name,
        |(_, local, connected, authority, expected)| {
            let expected = expected.map(ToOwned::to_owned).map_err(ToOwned::to_owned);
            (ask(local, connected, authority), expected)
        },
    );
}

#[test]
fn an_application_tunnel_takes_what_is_for_others() {
    let tunnel = ApplicationTunnel { protocol: TunnelProtocol::Proxy, port: Some(15088) };
    let local = Workload { application_tunnel: Some(tunnel), ..pod("sandwich", &["10.0.0.70"]) };
    let mesh = snapshot([local.clone()], [], []);
    let connected = socket("10.0.0.70:15008");
    for (authority, port, for_others) in
        [("10.9.9.9:80", 15088, true), ("elsewhere.example:80", 15088, true), ("10.0.0.70:8080", 8080, false)]
    {
        let authority = authority.parse().unwrap();
        let target = destination(&mesh, &local, connected, &authority).unwrap();
        assert_eq!(target, SocketAddr::new(ip("10.0.0.70"), port));
        assert_eq!(application_tunnel(&mesh, &local, connected, &authority).is_some(), for_others);
    }
    let any_port = ApplicationTunnel { port: None, ..tunnel };
    let local = Workload { application_tunnel: Some(any_port), ..local };
    let target = destination(&mesh, &local, connected, &"10.9.9.9:80".parse().unwrap());
    assert_eq!(target, Ok(socket("10.0.0.70:80")));
}

#[test]
fn an_ipv4_address_may_arrive_mapped() {
    let mesh = mesh();
    let local = mesh.workload_of_pod("default", "web").unwrap();
    let authority = Authority::Address(socket("10.0.0.1:80"));
    let answer = destination(&mesh, local, socket("[::ffff:10.0.0.1]:15008"), &authority).unwrap();
    assert_eq!(answer.port(), 80);
    assert!(mesh.service(&key("web")).is_some());
}
