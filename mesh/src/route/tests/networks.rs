use super::*;

fn remote(name: &str, gateway: Option<&str>) -> Workload {
    Workload {
        network: "east".into(),
        network_gateway: gateway.map(|at| gateway_by_address(at).into()),
        ..pod(name, &["10.0.0.2"])
    }
}

fn gateway() -> Workload {
    Workload { network: "east".into(), ..tcp_pod("gw", &["192.0.2.9"]) }
}

fn web() -> Service {
    Service { subject_alt_names: vec![identity("extra").into()], ..service("web", &["/10.1.0.1"]) }
}

#[test]
fn another_network_is_reached_through_its_gateway() {
    let far = remote("web", Some("east/192.0.2.9")).serving("web", [(80, 8080)]);
    let mesh = snapshot([far, gateway()], [web()], []);
    let outcome = go(&mesh, "10.1.0.1:80");
    assert_eq!(told(&outcome), "double workload 192.0.2.9:15008 for web.example:80");
    let Ok(Route::DoubleTunnel { accepted, inner_accepted, gateway, workload, .. }) = outcome else {
        panic!("not double")
    };
    assert_eq!(accepted, [identity("gw")]);
    assert_eq!(inner_accepted, [identity("extra")]);
    assert_eq!((&*gateway.name, &*workload.name), ("gw", "web"));
    // By the address of a pod, another network's pods do not exist.
    assert_eq!(told(&go(&mesh, "10.0.0.2:80")), "passthrough 10.0.0.2:80");
}

#[test]
fn without_a_gateway_another_network_is_out_of_reach() {
    let refused = "refused: no gateway to network east for 10.1.0.1:80";
    let serving = |workload: Workload| workload.serving("web", [(80, 8080)]);
    let unknown = snapshot([serving(remote("web", Some("east/192.0.2.9")))], [web()], []);
    assert_eq!(told(&go(&unknown, "10.1.0.1:80")), refused);
    let none = snapshot([serving(remote("web", None)), gateway()], [web()], []);
    assert_eq!(told(&go(&none, "10.1.0.1:80")), refused);
    let near = serving(pod("near", &["10.0.0.3"]));
    let one_near = snapshot([serving(remote("web", None)), near], [web()], []);
    for pick in 0..20 {
        let outcome = go_as(&one_near, &client(), "10.1.0.1:80", pick);
        assert_eq!(told(&outcome), "workload 10.0.0.3:15008 for 10.0.0.3:8080");
    }
}

#[test]
fn a_gateway_may_be_a_service() {
    let gateway = gateway().serving("eastwest", [(15008, 15008)]);
    let eastwest = Service { ports: ports([(15008, 15008)]), ..service("eastwest", &["/10.1.0.9"]) };
    let far = Workload { network_gateway: Some(gateway_by_host("eastwest").into()), ..remote("web", None) };
    let local_gateway = Workload { network: "".into(), ..gateway };
    let mesh = snapshot([far.serving("web", [(80, 8080)]), local_gateway], [web(), eastwest], []);
    assert_eq!(told(&go(&mesh, "10.1.0.1:80")), "double workload 192.0.2.9:15008 for web.example:80");
}

#[test]
fn a_waypoint_on_another_network() {
    let waypoint = remote("wp", Some("east/192.0.2.9")).serving("wp", [(15008, 15008)]);
    let front = Service { ports: ports([(15008, 15008)]), ..service("wp", &[]) };
    let by_host = Some(gateway_by_host("wp").into());
    let mesh = snapshot(
        [waypoint, gateway(), Workload { waypoint: by_host.clone(), ..pod("local", &["10.0.0.3"]) }],
        [Service { waypoint: by_host, ..web() }, front],
        [],
    );
    assert_eq!(told(&go(&mesh, "10.1.0.1:80")), "double waypoint 192.0.2.9:15008 for web.example:80");
    assert_eq!(told(&go(&mesh, "10.0.0.3:80")), "refused: no gateway to network east for 10.0.0.3:80");
}
