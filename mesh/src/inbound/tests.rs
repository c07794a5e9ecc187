use super::*;
use crate::testing::{gateway_by_address, gateway_by_host, ip, key, pod, ports, service, snapshot, socket};
use crate::workload::TunnelProtocol;

fn mesh() -> Snapshot {
    let waypoint = pod("waypoint", &["10.0.0.60"]).serving("waypoint", [(15008, 15008)]);
    let fronted =
        Workload { waypoint: Some(gateway_by_address("/10.0.0.60")), ..pod("cart", &["10.0.0.61"]) };
    let by_host = Service { waypoint: Some(gateway_by_host("waypoint")), ..service("shop", &["/10.1.0.2"]) };
    let named = Service { ports: ports([(80, 8080), (81, 0), (82, 0)]), ..service("web", &["/10.1.0.1"]) };
    let web = pod("web", &["10.0.0.1"]).serving("web", [(80, 9090), (81, 0)]).serving("hbone", [(80, 15008)]);
    let waypoint_service = Service { ports: ports([(15008, 15008)]), ..service("waypoint", &["/10.1.0.60"]) };
    snapshot([waypoint, fronted, web], [by_host, named, waypoint_service], [])
}

fn ask(local: &str, connected: &str, authority: &str) -> Result<String, String> {
    let mesh = mesh();
    let local = mesh.workload_of_pod("default", local).unwrap();
    destination(&mesh, local, socket(connected), &authority.parse().unwrap())
        .map(|target| target.to_string())
        .map_err(|refusal| refusal.to_string())
}

#[test]
fn what_a_tunnel_may_ask_for() {
    let mismatch = |authority: &str| {
        Err(format!(
            "the tunnel arrived at 10.0.0.1:15008 but asks for {authority}, which is not served there"
        ))
    };
    let own = "attempted recursive call to ourselves";
    for (authority, expected) in [
        ("10.0.0.1:80", Ok("10.0.0.1:80")),
        ("10.0.0.1:15001", Ok("10.0.0.1:15001")),
        ("10.0.0.1:15008", Err(own.to_owned())),
        ("10.0.0.2:80", mismatch("10.0.0.2:80")),
        ("10.0.0.61:80", mismatch("10.0.0.61:80")),
        ("10.1.0.1:80", mismatch("10.1.0.1:80")),
        ("web.example:80", Ok("10.0.0.1:9090")),
        ("web.example:81", Ok("10.0.0.1:81")),
        ("web.example:82", Err("service web.example has no port 82 at this workload".to_owned())),
        ("hbone.example:80", Err(own.to_owned())),
        ("shop.example:80", Err("the workload does not serve shop.example".to_owned())),
        ("nobody.example:80", Err("the workload does not serve nobody.example".to_owned())),
    ] {
        let expected = expected.map(ToOwned::to_owned);
        assert_eq!(ask("web", "10.0.0.1:15008", authority), expected, "{authority}");
    }
}

#[test]
fn a_waypoint_is_asked_for_what_it_fronts_and_answers_itself() {
    for (authority, expected) in [
        ("10.0.0.61:8080", Some("10.0.0.60:8080")),
        ("10.1.0.2:80", Some("10.0.0.60:80")),
        ("shop.example:80", Some("10.0.0.60:80")),
        ("10.1.0.1:80", None),
        ("10.0.0.1:80", None),
        ("web.example:80", None),
    ] {
        let answer = ask("waypoint", "10.0.0.60:15008", authority).ok();
        assert_eq!(answer.as_deref(), expected, "{authority}");
    }
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
