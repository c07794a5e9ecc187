use super::*;

/// What a decision went by, a line each, and what it came to.
fn steps(mesh: &Snapshot, source: &Workload, destination: &str) -> Vec<String> {
    let flow = Flow {
        source,
        source_address: source.addresses[0],
        destination: socket(destination),
        network: "",
        pick: 1,
        exclude: &[],
    };
    let (route, steps) = explain(mesh, &flow);
    assert_eq!(route, plan(mesh, &flow), "explained and planned: {destination}");
    steps.iter().map(ToString::to_string).chain([told(&route)]).collect()
}

#[test]
fn a_decision_tells_what_it_went_by() {
    let wp = Workload { service_account: "wp".into(), ..tcp_pod("wp", &["10.0.0.61"]) };
    let gate = gateway_by_host("wp");
    let far = Workload {
        network: "west".into(),
        network_gateway: Some(gateway_by_address("west/172.16.0.1").into()),
        ..pod("far", &["10.0.0.2"])
    };
    let mesh = snapshot(
        [
            wp.clone().serving("wp", [(15008, 15008)]),
            pod("web", &["10.0.0.3"]).serving("web", [(80, 8080)]),
            Workload { status: Health::Unhealthy, ..pod("ill", &["10.0.0.4"]) }.serving("web", [(80, 8080)]),
            tcp_pod("old", &["10.0.0.5"]),
            Workload { waypoint: Some(gate.clone().into()), ..pod("behind", &["10.0.0.6"]) },
            far.serving("far", [(80, 8080)]),
        ],
        [
            Service { ports: ports([(15008, 15008)]), ..service("wp", &["/10.1.0.60"]) },
            service("web", &["/10.1.0.1"]),
            service("none", &["/10.1.0.2"]),
            service("far", &["/10.1.0.3"]),
            Service { waypoint: Some(gate.into()), ..service("front", &["/10.1.0.4"]) },
        ],
        [],
    );
    let (client, uid) = (client(), "Kubernetes//Pod/default");
    let rows: &[(&Workload, &str, Vec<String>)] = &[
        (
            &client,
            "9.9.9.9:80",
            vec!["nobody in the mesh has the address".into(), "passthrough 9.9.9.9:80".into()],
        ),
        (
            &client,
            "10.0.0.5:80",
            vec![
                format!("the address is one of workload {uid}/old"),
                format!("{uid}/old takes no tunnels, so it is spoken to in plaintext"),
                "direct 10.0.0.5:80".into(),
            ],
        ),
        (
            &client,
            "10.1.0.1:80",
            vec![
                "the address is one of service default/web.example".into(),
                "service default/web.example has 1 endpoint(s) to choose from for port 80".into(),
                format!("chosen: {uid}/web, port 8080"),
                format!("{uid}/web takes tunnels (HBONE)"),
                "workload 10.0.0.3:15008 for 10.0.0.3:8080".into(),
            ],
        ),
        (
            &client,
            "10.1.0.2:80",
            vec![
                "the address is one of service default/none.example".into(),
                "service default/none.example has 0 endpoint(s) to choose from for port 80".into(),
                "refused: no healthy upstream: 10.1.0.2:80".into(),
            ],
        ),
        (
            &client,
            "10.1.0.1:81",
            vec![
                "the address is one of service default/web.example".into(),
                "refused: no healthy upstream: 10.1.0.1:81".into(),
            ],
        ),
        (
            &client,
            "10.1.0.3:80",
            vec![
                "the address is one of service default/far.example".into(),
                "service default/far.example has 1 endpoint(s) to choose from for port 80".into(),
                format!("chosen: {uid}/far, port 8080"),
                "it is on network west, behind gateway west/172.16.0.1".into(),
                "refused: no gateway to network west for 10.1.0.3:80".into(),
            ],
        ),
        (
            &client,
            "10.0.0.6:80",
            vec![
                format!("the address is one of workload {uid}/behind"),
                "waypoint default/wp.example is in front of it".into(),
                "service default/wp.example has 1 endpoint(s) to choose from for port 15008".into(),
                format!("chosen: {uid}/wp, port 15008"),
                "waypoint 10.0.0.61:15008 for 10.0.0.6:80".into(),
            ],
        ),
        (
            &wp,
            "10.0.0.6:80",
            vec![
                format!("the address is one of workload {uid}/behind"),
                "the source is its waypoint, so none is gone through".into(),
                format!("{uid}/behind takes tunnels (HBONE)"),
                "workload 10.0.0.6:15008 for 10.0.0.6:80".into(),
            ],
        ),
        (&client, "127.0.0.1:80", vec!["refused: the destination is a loopback address".into()]),
    ];
    for (source, destination, expected) in rows {
        assert_eq!(steps(&mesh, source, destination), *expected, "{} to {destination}", source.name);
    }
}

#[test]
fn all_that_may_be_chosen_are_told_and_no_other() {
    let weighing = |name: &str, ip: &str, capacity| {
        Workload { capacity, ..pod(name, &[ip]) }.serving("web", [(80, 8080)])
    };
    let mesh = snapshot(
        [
            weighing("a", "10.0.0.2", 1),
            weighing("b", "10.0.0.3", 3),
            weighing("idle", "10.0.0.4", 0),
            Workload { status: Health::Unhealthy, ..weighing("ill", "10.0.0.5", 9) },
        ],
        [service("web", &["/10.1.0.1"])],
        [],
    );
    let source = client();
    let mut told_of: Option<Vec<Arc<str>>> = None;
    let mut chosen = std::collections::BTreeSet::new();
    for pick in 0..200 {
        let flow = Flow {
            source: &source,
            source_address: source.addresses[0],
            destination: socket("10.1.0.1:80"),
            network: "",
            pick,
            exclude: &[],
        };
        let (route, steps) = explain(&mesh, &flow);
        let Ok(Route::Tunnel { workload, .. }) = route else { panic!("{route:?}") };
        chosen.insert(Arc::clone(&workload.uid));
        let among = steps.into_iter().find_map(|step| match step {
            Step::Endpoints { among, .. } => Some(among),
            _ => None,
        });
        assert!(told_of.is_none() || told_of == among);
        told_of = among;
    }
    let mut told_of = told_of.unwrap();
    told_of.sort();
    assert_eq!(told_of, chosen.into_iter().collect::<Vec<_>>());
}
