use std::collections::BTreeMap;

use super::*;

/// How often each endpoint is taken in 1000 connections to 10.1.0.1:80.
fn spread(mesh: &Snapshot) -> BTreeMap<String, u32> {
    let mut counts = BTreeMap::new();
    for pick in 0..1000 {
        let name = match go_as(mesh, &client(), "10.1.0.1:80", pick) {
            Ok(Route::Tunnel { workload, .. } | Route::DoubleTunnel { workload, .. }) => {
                workload.name.to_string()
            }
            other => told(&other),
        };
        *counts.entry(name).or_default() += 1;
    }
    counts
}

fn web(balancer: LoadBalancer, endpoints: impl IntoIterator<Item = Workload>) -> Snapshot {
    let endpoints = endpoints.into_iter().map(|endpoint| endpoint.serving("web", [(80, 8080)]));
    snapshot(endpoints, [Service { load_balancer: balancer, ..service("web", &["/10.1.0.1"]) }], [])
}

fn balancer(mode: LoadBalancerMode, preferences: &[Scope]) -> LoadBalancer {
    LoadBalancer { preferences: preferences.to_vec(), mode, ..LoadBalancer::default() }
}

fn numbered(n: u8) -> Workload {
    pod(&format!("e{n}"), &[&format!("10.0.1.{n}")])
}

#[test]
fn endpoints_are_taken_by_capacity() {
    let of = |capacity: u32, n| Workload { capacity, ..numbered(n) };
    let counts = spread(&web(LoadBalancer::default(), [of(1, 1), of(3, 2), of(0, 3)]));
    assert_eq!(counts.len(), 2);
    assert!((200..300).contains(&counts["e1"]), "{counts:?}");
    let counts = spread(&web(LoadBalancer::default(), [of(0, 1), of(0, 2)]));
    assert!((400..600).contains(&counts["e1"]) && counts.len() == 2, "{counts:?}");
}

#[test]
fn which_endpoints_are_taken() {
    use LoadBalancerMode::{Failover, Standard, Strict};
    use Scope::{Cluster, Network, Node, Region, Subzone, Zone};
    let same_node = || placed(numbered(1), "r1/z1/s1", "n1");
    let same_subzone = || placed(numbered(2), "r1/z1/s1", "n2");
    let same_zone = || placed(numbered(3), "r1/z1/s2", "n3");
    let same_region = || placed(numbered(4), "r1/z2/s1", "n4");
    let far = || placed(numbered(5), "r2/z1/s1", "n5");
    let all = || vec![same_node(), same_subzone(), same_zone(), same_region(), far()];
    let abroad = |n, place: &str| Workload {
        network: "east".into(),
        cluster_id: "other".into(),
        network_gateway: Some(gateway_by_address("east/192.0.2.9").into()),
        ..placed(numbered(n), place, "n1")
    };
    let table: Vec<(&str, LoadBalancer, Vec<Workload>, &[&str])> = vec![
        ("standard", balancer(Standard, &[]), all(), &["e1", "e2", "e3", "e4", "e5"]),
        ("standard ignores preferences", balancer(Standard, &[Node]), all(), &["e1", "e2", "e3", "e4", "e5"]),
        ("strict node", balancer(Strict, &[Node]), all(), &["e1"]),
        ("strict region and zone", balancer(Strict, &[Region, Zone]), all(), &["e1", "e2", "e3"]),
        ("strict cluster", balancer(Strict, &[Cluster]), vec![far(), abroad(6, "r1/z1/s1")], &["e5"]),
        (
            "strict, none",
            balancer(Strict, &[Node]),
            vec![far()],
            &["refused: no healthy upstream: 10.1.0.1:80"],
        ),
        ("failover, subzone", balancer(Failover, &[Region, Zone, Subzone]), all(), &["e1", "e2"]),
        (
            "failover, zone",
            balancer(Failover, &[Region, Zone, Subzone]),
            vec![same_zone(), same_region(), far()],
            &["e3"],
        ),
        (
            "failover, region",
            balancer(Failover, &[Region, Zone, Subzone]),
            vec![same_region(), far()],
            &["e4"],
        ),
        ("failover, anything", balancer(Failover, &[Region, Zone, Subzone]), vec![far()], &["e5"]),
        (
            "failover is an ordered prefix",
            balancer(Failover, &[Region, Zone, Subzone]),
            vec![same_region(), same_zone()],
            &["e3"],
        ),
        (
            "failover, the client's network first",
            balancer(Failover, &[Network, Region, Zone]),
            vec![placed(numbered(1), "r1/z9/s", "n"), abroad(6, "r9/z/s")],
            &["e1"],
        ),
        (
            "failover, the client's network comes before what is nearer on another",
            balancer(Failover, &[Network, Region, Zone]),
            vec![placed(numbered(1), "r9/z9/s", "n"), abroad(6, "r1/z1/s1")],
            &["e1"],
        ),
        (
            "failover, another network when the client's has none that is well",
            balancer(Failover, &[Network, Region, Zone]),
            vec![Workload { status: Health::Unhealthy, ..same_node() }, abroad(6, "r9/z9/s")],
            &["e6"],
        ),
        ("failover, no preferences at all", balancer(Failover, &[]), vec![same_node(), far()], &["e1", "e5"]),
        ("strict, no preferences at all", balancer(Strict, &[]), vec![same_node(), far()], &["e1", "e5"]),
        (
            "strict network, none here",
            balancer(Strict, &[Network]),
            vec![abroad(6, "r1/z1/s1")],
            &["refused: no healthy upstream: 10.1.0.1:80"],
        ),
        (
            "failover, other networks are ranked by what follows",
            balancer(Failover, &[Network, Region, Zone]),
            vec![abroad(6, "r1/z1/s1"), abroad(7, "r1/z9/s1"), abroad(8, "r9/z1/s1")],
            &["e6"],
        ),
        (
            "failover, a network that is not first is as any other",
            balancer(Failover, &[Region, Network, Zone]),
            vec![abroad(6, "r1/z1/s1"), placed(numbered(1), "r1/z9/s", "n")],
            &["e1"],
        ),
    ];
    let gateway = Workload { network: "east".into(), ..pod("gateway", &["192.0.2.9"]) };
    for (about, balancer, endpoints, expected) in table {
        let mut editor = web(balancer, endpoints).edit();
        editor.insert_workload(gateway.clone());
        let taken: Vec<String> = spread(&editor.finish()).into_keys().collect();
        assert_eq!(taken, expected, "{about}");
    }
}

#[test]
fn unhealthy_endpoints_are_left_out_unless_allowed() {
    let sick = || Workload { status: Health::Unhealthy, ..numbered(1) };
    let allow_all = || LoadBalancer { health_policy: HealthPolicy::AllowAll, ..LoadBalancer::default() };
    let taken = |mesh: &Snapshot| spread(mesh).into_keys().collect::<Vec<_>>();
    assert_eq!(taken(&web(LoadBalancer::default(), [sick(), numbered(2)])), ["e2"]);
    assert_eq!(taken(&web(allow_all(), [sick(), numbered(2)])), ["e1", "e2"]);
    assert_eq!(taken(&web(allow_all(), [sick()])), ["e1"]);
    // A nearer one that is not ready does not hold back the others.
    let near_sick = placed(sick(), "r1/z1/s1", "n1");
    let failover = balancer(LoadBalancerMode::Failover, &[Scope::Region]);
    assert_eq!(taken(&web(failover, [near_sick, placed(numbered(2), "r2/z/s", "n")])), ["e2"]);
}

/// The endpoints taken one after the other, each leaving out those before it, and how it ends.
fn one_after_the_other(mesh: &Snapshot, destination: &str) -> (Vec<String>, String) {
    let (mut taken, mut exclude) = (Vec::new(), Vec::new());
    loop {
        match go_without(mesh, &client(), destination, 7, &exclude) {
            Ok(Route::Tunnel { workload, .. }) if !exclude.contains(&workload.uid) => {
                taken.push(workload.name.to_string());
                exclude.push(Arc::clone(&workload.uid));
            }
            Ok(_) => return (taken, "the same again".into()),
            Err(refusal) => return (taken, refusal.to_string()),
        }
    }
}

#[test]
fn what_was_tried_in_vain_is_not_taken_again() {
    let all = || (1..=5).map(numbered);
    let (mut taken, end) = one_after_the_other(&web(LoadBalancer::default(), all()), "10.1.0.1:80");
    taken.sort_unstable();
    assert_eq!(taken, ["e1", "e2", "e3", "e4", "e5"]);
    assert_eq!(end, "no healthy upstream: 10.1.0.1:80");
    // Farther ones come once the nearer are used up; where only near ones may be taken, none does.
    let near = placed(numbered(1), "r1/z1/s1", "n1");
    let far = placed(numbered(2), "r2/z1/s1", "n2");
    let scopes = [Scope::Region];
    for (mode, expected) in
        [(LoadBalancerMode::Failover, &["e1", "e2"][..]), (LoadBalancerMode::Strict, &["e1"])]
    {
        let mesh = web(balancer(mode, &scopes), [near.clone(), far.clone()]);
        assert_eq!(one_after_the_other(&mesh, "10.1.0.1:80").0, expected, "{mode:?}");
    }
}

#[test]
fn instances_of_a_waypoint_are_tried_one_after_the_other_too() {
    let waypoints = (1..=2).map(|n| numbered(n).serving("front", [(15008, 15008)]));
    let front = Service { ports: ports([(15008, 15008)]), ..service("front", &["/10.1.0.9"]) };
    let web = Service { waypoint: Some(gateway_by_host("front").into()), ..service("web", &["/10.1.0.1"]) };
    let (mut taken, end) = one_after_the_other(&snapshot(waypoints, [front, web], []), "10.1.0.1:80");
    taken.sort_unstable();
    assert_eq!(taken, ["e1", "e2"]);
    assert!(end.starts_with("no healthy waypoint"), "{end}");
}

#[test]
fn an_address_of_its_own_is_not_chosen_so_nothing_takes_its_place() {
    let mesh = snapshot([numbered(1)], [], []);
    assert_eq!(
        one_after_the_other(&mesh, "10.0.1.1:80"),
        (vec!["e1".to_owned()], "the same again".to_owned())
    );
}

#[test]
fn which_port() {
    for (about, of_service, of_endpoint, expected) in [
        ("the endpoint's", (80, 8080), vec![(80, 9090)], Some(9090)),
        ("the service's", (80, 8080), vec![], Some(8080)),
        ("the service's, the endpoint leaves it open", (80, 8080), vec![(80, 0)], Some(8080)),
        ("by name, the endpoint's", (80, 0), vec![(80, 9090)], Some(9090)),
        ("by name, the endpoint lacks it", (80, 0), vec![(81, 9090)], None),
        ("both leave it open: the same", (80, 0), vec![(80, 0)], Some(80)),
    ] {
        let mut endpoint = numbered(1);
        endpoint.services.insert(crate::testing::key("web"), of_endpoint.into_iter().collect());
        let mesh = snapshot(
            [endpoint],
            [Service { ports: ports([of_service]), ..service("web", &["/10.1.0.1"]) }],
            [],
        );
        let port = match go(&mesh, "10.1.0.1:80") {
            Ok(Route::Tunnel { authority, .. }) => Some(authority.port()),
            _ => None,
        };
        assert_eq!(port, expected, "{about}");
    }
}

#[test]
fn which_address() {
    use IpFamilies::{Automatic, Dual, Ipv4Only, Ipv6Only};
    let (v4, v6) = ("10.0.1.1", "fd00:1::1");
    for (about, addresses, families, destination, expected) in [
        ("the client's family", vec![v6, v4], Automatic, "10.1.0.1:80", v4),
        ("the client's family, v6", vec![v4, v6], Automatic, "[fd01::1]:80", v6),
        ("dual is the client's too", vec![v6, v4], Dual, "10.1.0.1:80", v4),
        ("the service's only family", vec![v4, v6], Ipv6Only, "10.1.0.1:80", v6),
        ("the service's only family, v4", vec![v6, v4], Ipv4Only, "[fd01::1]:80", v4),
        ("the only one there is", vec![v6], Automatic, "10.1.0.1:80", v6),
        ("the one asked for", vec![v4, "10.1.0.1"], Ipv6Only, "10.1.0.1:80", "10.1.0.1"),
    ] {
        let endpoint = pod("e", &addresses).serving("web", [(80, 8080)]);
        let web = Service { ip_families: families, ..service("web", &["/10.1.0.1", "/fd01::1"]) };
        let Ok(Route::Tunnel { next_hop, .. }) = go(&snapshot([endpoint], [web], []), destination) else {
            panic!("{about}: not a tunnel")
        };
        assert_eq!(next_hop.ip(), ip(expected), "{about}");
    }
}
