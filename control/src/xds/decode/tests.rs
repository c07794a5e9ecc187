//! Each field that may be wrong, and what is absent.

use mesh::policy::{self, Action, Match, StringMatch};
use mesh::service::{IpFamilies, LoadBalancerMode, Visibility};
use mesh::workload::{GatewayDestination, Protocol};
use prost::Message;

use super::*;
use crate::proto::discovery::{Any, Resource};
use crate::proto::{security, workload as wire};

fn resource(name: &str, type_url: &str, body: &impl Message) -> Resource {
    Resource {
        name: name.to_owned(),
        version: "1".to_owned(),
        aliases: Vec::new(),
        resource: Some(Any { type_url: type_url.to_owned(), value: body.encode_to_vec().into() }),
    }
}

fn small_workload() -> wire::Workload {
    wire::Workload { uid: "u".to_owned(), namespace: "ns".to_owned(), ..Default::default() }
}

fn small_service() -> wire::Service {
    wire::Service { namespace: "ns".to_owned(), hostname: "web.example".to_owned(), ..Default::default() }
}

fn small_policy() -> security::Authorization {
    security::Authorization { name: "p".to_owned(), namespace: "ns".to_owned(), ..Default::default() }
}

fn workload(body: wire::Workload) -> Result<mesh::Workload, String> {
    let body = wire::Address { r#type: Some(Type::Workload(body)) };
    match address(&resource("u", ADDRESS, &body)).map_err(|error| error.to_string())? {
        Address::Workload(workload) => Ok(workload),
        Address::Service(service) => panic!("{service:?}"),
    }
}

fn service(body: wire::Service) -> Result<mesh::Service, String> {
    let body = wire::Address { r#type: Some(Type::Service(body)) };
    match address(&resource("ns/web.example", ADDRESS, &body)).map_err(|error| error.to_string())? {
        Address::Service(service) => Ok(service),
        Address::Workload(workload) => panic!("{workload:?}"),
    }
}

fn policy_of(body: security::Authorization) -> Result<mesh::Policy, String> {
    authorization(&resource("ns/p", AUTHORIZATION, &body)).map_err(|error| error.to_string())
}

fn with_match(action: security::Action, condition: security::Match) -> security::Authorization {
    let clause = security::Clause { matches: vec![condition] };
    let rule = security::Rule { clauses: vec![clause] };
    security::Authorization { action: action.into(), rules: vec![rule], ..small_policy() }
}

fn network_address(address: &[u8], length: Option<u32>) -> wire::NetworkAddress {
    wire::NetworkAddress { network: "east".to_owned(), address: address.to_vec().into(), length }
}

fn gateway(address: &[u8], port: u32) -> Option<wire::GatewayAddress> {
    let destination = wire::gateway_address::Destination::Address(network_address(address, None));
    Some(wire::GatewayAddress { destination: Some(destination), hbone_mtls_port: port })
}

#[test]
fn what_is_absent_means_what_it_means_on_the_wire() {
    let expected = mesh::Workload { uid: "u".into(), namespace: "ns".into(), ..mesh::Workload::default() };
    let decoded = workload(small_workload()).unwrap();
    assert_eq!(decoded, expected);
    assert_eq!(decoded.identity().to_string(), "spiffe://cluster.local/ns/ns/sa/default");
    assert_eq!((&*decoded.cluster_id, decoded.capacity, decoded.protocol), ("Kubernetes", 1, Protocol::Tcp));
    let expected =
        mesh::Service { namespace: "ns".into(), hostname: "web.example".into(), ..mesh::Service::default() };
    assert_eq!(service(small_service()).unwrap(), expected);
    let policy = policy_of(small_policy()).unwrap();
    assert_eq!((policy.scope, policy.action), (policy::Scope::Global, Action::Allow));
    assert!(policy.rules.is_empty() && !policy.dry_run);
}

#[test]
fn addresses_are_canonical() {
    let mapped = std::net::Ipv4Addr::new(10, 0, 0, 1).to_ipv6_mapped().octets();
    let decoded = workload(wire::Workload {
        addresses: vec![vec![10, 0, 0, 2].into(), mapped.to_vec().into()],
        waypoint: gateway(&mapped, 0),
        ..small_workload()
    });
    let decoded = decoded.unwrap();
    assert_eq!(
        *decoded.addresses,
        ["10.0.0.2", "10.0.0.1"].map(|ip| ip.parse::<std::net::IpAddr>().unwrap())
    );
    let waypoint = decoded.waypoint.unwrap();
    assert_eq!(waypoint.destination, GatewayDestination::Address("east/10.0.0.1".parse().unwrap()));
    assert_eq!(waypoint.hbone_mtls_port, 15008);
    let decoded = service(wire::Service {
        addresses: vec![
            network_address(&[10, 1, 0, 1], None),
            network_address(&[10, 1, 0, 2], Some(32)),
            network_address(&[240, 0, 1, 9], Some(24)),
            network_address(&mapped, Some(104)),
            network_address(&mapped, Some(128)),
            network_address(&[0xfd; 16], Some(8)),
        ],
        ..small_service()
    });
    let decoded = decoded.unwrap();
    let vips: Vec<_> = decoded.vips.iter().map(ToString::to_string).collect();
    assert_eq!(vips, ["east/10.1.0.1", "east/10.1.0.2", "east/10.0.0.1"]);
    let ranges: Vec<_> = decoded.cidr_vips.iter().map(ToString::to_string).collect();
    assert_eq!(ranges, ["east/240.0.1.0/24", "east/10.0.0.0/8", "east/fd00::/8"]);
}

#[test]
fn a_workload_that_is_wrong_names_the_field() {
    type Spoil = fn(&mut wire::Workload);
    let spoils: [(&str, Spoil); 24] = [
        ("uid:", |w| w.uid.clear()),
        ("name:", |w| w.uid = "other".to_owned()),
        ("namespace: it is empty", |w| w.namespace.clear()),
        ("namespace:", |w| w.namespace = "a/b".to_owned()),
        ("namespace:", |w| w.namespace = "a\0".to_owned()),
        ("trust_domain:", |w| w.trust_domain = "a/b".to_owned()),
        ("service_account:", |w| w.service_account = "a b".to_owned()),
        ("cluster_id:", |w| w.cluster_id = "a\nb".to_owned()),
        ("addresses: an address has 4 or 16 bytes, not 5", |w| w.addresses = vec![vec![1; 5].into()]),
        ("addresses:", |w| w.addresses = vec![Vec::new().into()]),
        ("tunnel_protocol: LEGACY_ISTIO_MTLS", |w| w.tunnel_protocol = 2),
        ("tunnel_protocol: 3 is not known", |w| w.tunnel_protocol = 3),
        ("network_mode: 2 is not known", |w| w.network_mode = 2),
        ("workload_type: 9 is not known", |w| w.workload_type = 9),
        ("status: -1 is not known", |w| w.status = -1),
        ("authorization_policies:", |w| w.authorization_policies = vec!["name".to_owned()]),
        ("authorization_policies:", |w| w.authorization_policies = vec!["a/b/c".to_owned()]),
        ("waypoint: it has neither", |w| w.waypoint = Some(wire::GatewayAddress::default())),
        ("waypoint: an address", |w| w.waypoint = gateway(&[1; 3], 0)),
        ("network_gateway: 65536", |w| w.network_gateway = gateway(&[1; 4], 65_536)),
        ("services:", |w| {
            w.services.insert("web".to_owned(), wire::PortList::default());
        }),
        ("services: 0 is not a port", |w| {
            let ports = vec![wire::Port { service_port: 0, target_port: 1 }];
            w.services.insert("ns/web".to_owned(), wire::PortList { ports });
        }),
        ("services: 70000 is not a port", |w| {
            let ports = vec![wire::Port { service_port: 80, target_port: 70_000 }];
            w.services.insert("ns/web".to_owned(), wire::PortList { ports });
        }),
        ("application_tunnel: 7 is not known", |w| {
            w.application_tunnel = Some(wire::ApplicationTunnel { protocol: 7, port: 0 });
        }),
    ];
    for (expected, spoil) in spoils {
        let mut body = small_workload();
        spoil(&mut body);
        let error = workload(body).unwrap_err();
        assert!(error.starts_with(&format!("u: {expected}")), "{expected}: {error}");
    }
}

#[test]
fn a_service_that_is_wrong_names_the_field() {
    type Spoil = fn(&mut wire::Service);
    let balanced = |edit: fn(&mut wire::LoadBalancing)| {
        let mut load_balancing = wire::LoadBalancing::default();
        edit(&mut load_balancing);
        wire::Service { load_balancing: Some(load_balancing), ..small_service() }
    };
    let spoils: [(&str, Spoil); 8] = [
        ("namespace:", |s| s.namespace = "a b".to_owned()),
        ("hostname:", |s| s.hostname.clear()),
        ("hostname:", |s| s.hostname = "a/b".to_owned()),
        ("addresses: an address has 4 or 16", |s| s.addresses = vec![network_address(&[1; 5], None)]),
        ("addresses: 10.0.0.1 has no prefix of 33", |s| {
            s.addresses = vec![network_address(&[10, 0, 0, 1], Some(33))];
        }),
        ("addresses: ", |s| s.addresses = vec![network_address(&[1; 16], Some(129))]),
        ("ip_families: 4", |s| s.ip_families = 4),
        ("weighted_waypoints: one", |s| s.weighted_waypoints = vec![wire::WeightedWaypoint::default()]),
    ];
    let spoilt = spoils.map(|(expected, spoil)| {
        let mut body = small_service();
        spoil(&mut body);
        (expected, body)
    });
    let unbalanced = [
        ("load_balancing.mode: 4", balanced(|l| l.mode = 4)),
        ("load_balancing.health_policy: 2", balanced(|l| l.health_policy = 2)),
        ("load_balancing.routing_preference: 0", balanced(|l| l.routing_preference = vec![1, 0])),
        ("load_balancing.routing_preference: 7", balanced(|l| l.routing_preference = vec![7])),
    ];
    for (expected, body) in spoilt.into_iter().chain(unbalanced) {
        let error = service(body).unwrap_err();
        assert!(error.starts_with(&format!("ns/web.example: {expected}")), "{expected}: {error}");
    }
}

#[test]
fn words_of_a_service() {
    let body = wire::Service {
        visibility: 7,
        ip_families: 3,
        load_balancing: Some(wire::LoadBalancing {
            mode: 2,
            routing_preference: vec![6, 1],
            health_policy: 1,
        }),
        ..small_service()
    };
    let decoded = service(body).unwrap();
    assert_eq!(decoded.visibility, Visibility::Public, "what is not known is public");
    assert_eq!(decoded.ip_families, IpFamilies::Dual);
    assert_eq!(decoded.load_balancer.mode, LoadBalancerMode::Failover);
    assert_eq!(
        decoded.load_balancer.preferences,
        [mesh::service::Scope::Network, mesh::service::Scope::Region]
    );
    let hidden = service(wire::Service { visibility: 1, ..small_service() }).unwrap();
    assert_eq!(hidden.visibility, Visibility::Namespace);
}

#[test]
fn a_policy_that_is_wrong_names_the_field() {
    let range = |length| vec![security::Address { address: vec![10, 0, 0, 0].into(), length }];
    let account =
        security::ServiceAccountMatch { namespace: "ns".to_owned(), service_account: String::new() };
    let matches = [
        (
            "source_ips: 10.0.0.0 has no prefix of 33",
            security::Match { source_ips: range(33), ..Default::default() },
        ),
        (
            "not_destination_ips: an address",
            security::Match { not_destination_ips: vec![security::Address::default()], ..Default::default() },
        ),
        ("destination_ports: 0", security::Match { destination_ports: vec![0], ..Default::default() }),
        (
            "not_destination_ports: 70000",
            security::Match { not_destination_ports: vec![80, 70_000], ..Default::default() },
        ),
        (
            "principals: one says nothing",
            security::Match { principals: vec![security::StringMatch::default()], ..Default::default() },
        ),
        (
            "service_accounts: it is empty",
            security::Match { service_accounts: vec![account], ..Default::default() },
        ),
    ];
    let matches = matches.map(|(expected, m)| (expected, with_match(security::Action::Deny, m)));
    let others = [
        ("name:", security::Authorization { name: String::new(), ..small_policy() }),
        ("namespace:", security::Authorization { namespace: "a/b".to_owned(), ..small_policy() }),
        ("scope: 3", security::Authorization { scope: 3, ..small_policy() }),
        ("action: 2", security::Authorization { action: 2, ..small_policy() }),
        ("name: what it holds is ns/q", security::Authorization { name: "q".to_owned(), ..small_policy() }),
    ];
    for (expected, body) in matches.into_iter().chain(others) {
        let error = policy_of(body).unwrap_err();
        assert!(error.starts_with(&format!("ns/p: {expected}")), "{expected}: {error}");
    }
}

#[test]
fn what_an_extension_wants_never_makes_a_policy_weaker() {
    let extensions = vec![security::Extension { name: "future".to_owned() }];
    let only = security::Match { extensions, ..Default::default() };
    let exact = security::string_match::MatchType::Exact("shop".to_owned());
    let namespaces = vec![security::StringMatch { match_type: Some(exact) }];
    let both = security::Match { namespaces: namespaces.clone(), ..only.clone() };
    let decoded = |action, condition| {
        policy_of(with_match(action, condition)).unwrap().rules[0].clauses[0].matches[0].clone()
    };
    use security::Action::{Allow, Deny};
    assert_eq!(decoded(Allow, only.clone()), Match::default(), "matches nothing");
    assert_eq!(decoded(Allow, both.clone()), Match::default(), "matches nothing");
    let shop = Match { namespaces: vec![StringMatch::Exact("shop".into())], ..Match::default() };
    assert_eq!(decoded(Deny, both), shop);
    assert_eq!(decoded(Allow, security::Match { namespaces, ..Default::default() }), shop);
    let everything = decoded(Deny, only);
    assert_eq!(everything.source_ips, ["0.0.0.0/0", "::/0"].map(|net| net.parse::<ipnet::IpNet>().unwrap()));
    assert_eq!(decoded(Deny, security::Match::default()), Match::default(), "stays what it is");
}

#[test]
fn what_is_not_of_the_type_or_not_a_message() {
    let body = wire::Address { r#type: None };
    let error = address(&resource("u", ADDRESS, &body)).unwrap_err().to_string();
    assert_eq!(error, "u: type: it is neither a workload nor a service");
    let error = address(&resource("u", AUTHORIZATION, &body)).unwrap_err().to_string();
    assert!(error.starts_with("u: type_url: "), "{error}");
    let error = address(&Resource { resource: None, ..resource("u", ADDRESS, &body) }).unwrap_err();
    assert_eq!(error.to_string(), "u: resource: there is none");
    let garbage = Any { type_url: ADDRESS.to_owned(), value: vec![0xff; 9].into() };
    let error = address(&Resource { resource: Some(garbage), ..resource("u", ADDRESS, &body) }).unwrap_err();
    assert!(error.to_string().starts_with("u: resource: "), "{error}");
}
