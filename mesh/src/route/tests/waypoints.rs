use super::*;

/// Two waypoint pods, which say they speak plain TCP, behind a service.
fn waypoint_pods() -> [Workload; 2] {
    [
        Workload { service_account: "wp".into(), ..tcp_pod("wp1", &["10.0.0.61"]) }
            .serving("wp", [(15008, 15008)]),
        Workload {
            service_account: "wp".into(),
            status: Health::Unhealthy,
            ..tcp_pod("wp2", &["10.0.0.62"])
        }
        .serving("wp", [(15008, 15008)]),
    ]
}

fn waypoint_service() -> Service {
    Service { ports: ports([(15008, 15008)]), ..service("wp", &["/10.1.0.60"]) }
}

fn mesh() -> Snapshot {
    let by_host = Some(gateway_by_host("wp").into());
    let [one, two] = waypoint_pods();
    let cart = pod("cart", &["10.0.0.2"]).serving("cart", [(80, 8080)]).serving("bare", [(80, 8080)]);
    let passthrough = LoadBalancer { mode: LoadBalancerMode::Passthrough, ..LoadBalancer::default() };
    snapshot(
        [
            one,
            two,
            Workload { waypoint: by_host.clone(), ..cart },
            Workload {
                waypoint: Some(gateway_by_address("/10.1.0.60").into()),
                ..pod("by-vip", &["10.0.0.3"])
            },
            Workload {
                waypoint: Some(gateway_by_address("/10.0.0.61").into()),
                ..pod("by-pod", &["10.0.0.4"])
            },
            Workload { waypoint: Some(gateway_by_host("gone").into()), ..pod("lost", &["10.0.0.5"]) },
            Workload {
                waypoint: Some(gateway_by_address("/10.9.9.9").into()),
                ..pod("lost2", &["10.0.0.6"])
            },
        ],
        [
            waypoint_service(),
            Service { waypoint: by_host.clone(), ..service("cart", &["/10.1.0.2"]) },
            service("bare", &["/10.1.0.3"]),
            Service { waypoint: Some(gateway_by_host("gone").into()), ..service("lost", &["/10.1.0.5"]) },
            Service { waypoint: by_host, load_balancer: passthrough, ..service("through", &["/10.1.0.6"]) },
        ],
        [],
    )
}

#[test]
fn who_stands_in_front() {
    let mesh = mesh();
    for (about, destination, expected) in [
        ("a service", "10.1.0.2:80", "waypoint 10.0.0.61:15008 for 10.1.0.2:80"),
        (
            "an unknown port is the waypoint's business",
            "10.1.0.2:99",
            "waypoint 10.0.0.61:15008 for 10.1.0.2:99",
        ),
        ("a workload's pod IP", "10.0.0.2:8080", "waypoint 10.0.0.61:15008 for 10.0.0.2:8080"),
        (
            "a service without one, of a workload with one",
            "10.1.0.3:80",
            "workload 10.0.0.2:15008 for 10.0.0.2:8080",
        ),
        ("by the VIP of a service", "10.0.0.3:80", "waypoint 10.0.0.61:15008 for 10.0.0.3:80"),
        ("by the address of a pod", "10.0.0.4:80", "waypoint 10.0.0.61:15008 for 10.0.0.4:80"),
        ("a PASSTHROUGH service", "10.1.0.6:80", "waypoint 10.0.0.61:15008 for 10.1.0.6:80"),
        (
            "unknown, in front of a service",
            "10.1.0.5:80",
            "refused: no healthy waypoint default/gone.example for 10.1.0.5:80",
        ),
        (
            "unknown, in front of a workload",
            "10.0.0.5:80",
            "refused: no healthy waypoint default/gone.example for 10.0.0.5:80",
        ),
        ("unknown by address", "10.0.0.6:80", "refused: no healthy waypoint /10.9.9.9 for 10.0.0.6:80"),
    ] {
        assert_eq!(told(&go(&mesh, destination)), expected, "{about}");
    }
}

#[test]
fn the_waypoints_identity_is_accepted_and_the_service_told() {
    let Ok(Route::Tunnel { accepted, workload, service, .. }) = go(&mesh(), "10.1.0.2:80") else {
        panic!("not a tunnel")
    };
    assert_eq!(accepted, [identity("wp")]);
    assert_eq!((&*workload.name, &*service.unwrap().name), ("wp1", "cart"));
}

#[test]
fn a_waypoint_does_not_go_through_itself() {
    let mesh = mesh();
    let [one, two] = waypoint_pods();
    let imposter = Workload { service_account: "other".into(), ..one.clone() };
    let elsewhere = Workload { addresses: [ip("10.0.0.99")].into(), ..one.clone() };
    for (about, source, skipped) in [
        ("one of its pods", &one, true),
        ("one that is not ready", &two, true),
        ("its address, not its identity", &imposter, false),
        ("its identity, not its address", &elsewhere, false),
    ] {
        for (destination, on) in [
            ("10.1.0.2:80", "workload 10.0.0.2:15008 for 10.0.0.2:8080"),
            ("10.0.0.2:8080", "workload 10.0.0.2:15008 for 10.0.0.2:8080"),
        ] {
            let outcome = told(&go_as(&mesh, source, destination, 1));
            assert_eq!(outcome == on, skipped, "{about} to {destination}: {outcome}");
        }
    }
}

#[test]
fn weighted_waypoints_share_the_connections() {
    let share = |name: &str, weight| WeightedWaypoint { destination: gateway_by_host(name), weight };
    let one = |name: &str, address: &str| pod(name, &[address]).serving(name, [(15008, 15008)]);
    let front = |name: &str| Service { ports: ports([(15008, 15008)]), ..service(name, &[]) };
    let mesh = |shares: Vec<WeightedWaypoint>| {
        let split = Service {
            waypoint: Some(gateway_by_host("old").into()),
            weighted_waypoints: shares,
            ..service("web", &["/10.1.0.1"])
        };
        let workloads = [one("old", "10.0.0.61"), one("new", "10.0.0.62"), pod("w", &["10.0.0.2"])];
        let workloads = workloads.map(|w| if &*w.name == "w" { w.serving("web", [(80, 80)]) } else { w });
        snapshot(workloads, [split, front("old"), front("new")], [])
    };
    let to_new = |mesh: &Snapshot| {
        (0..1000)
            .filter(|pick| {
                told(&go_as(mesh, &client(), "10.1.0.1:80", *pick)).starts_with("waypoint 10.0.0.62")
            })
            .count()
    };
    assert!((200..300).contains(&to_new(&mesh(vec![share("old", 3), share("new", 1)]))));
    assert_eq!(to_new(&mesh(vec![share("old", 0), share("new", 5)])), 1000);
    assert_eq!(to_new(&mesh(vec![share("new", 0)])), 0);
    assert_eq!(to_new(&mesh(vec![])), 0);
    // The canary is a waypoint of the service as well.
    let canary = one("new", "10.0.0.62");
    let outcome = go_as(&mesh(vec![share("old", 3), share("new", 1)]), &canary, "10.1.0.1:80", 1);
    assert_eq!(told(&outcome), "workload 10.0.0.2:15008 for 10.0.0.2:80");
}
