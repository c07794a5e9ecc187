//! Resources of the control plane: what decodes obeys what the mesh takes for granted.

use control::proto::discovery::{Any, Resource};
use control::proto::workload::address::Type;
use control::proto::{security, workload as wire};
use control::xds::decode::{self, Address};
use control::xds::{ADDRESS, AUTHORIZATION};
use ipnet::IpNet;
use mesh::policy::{Action, Match};
use mesh::workload::{GatewayAddress, GatewayDestination, PortMap};
use mesh::{Identity, NetworkAddress};
use prost::Message;

fn resource(name: String, type_url: &str, value: Vec<u8>) -> Resource {
    let resource = Some(Any { type_url: type_url.to_owned(), value: value.into() });
    Resource { name, resource, ..Resource::default() }
}

/// What a resource decodes to, each time. Of several faults any may be named: those in a map have no order.
fn decoded(resource: &Resource) -> Option<Address> {
    match (decode::address(resource), decode::address(resource)) {
        (Ok(once), Ok(again)) => {
            assert_eq!(once, again);
            Some(once)
        }
        (Err(_), Err(_)) => None,
        (once, again) => panic!("{once:?} once, {again:?} again"),
    }
}

/// A workload; and the bytes as an address of any kind.
///
/// # Panics
/// When something does not hold.
pub fn xds_workload(data: &[u8]) {
    let _ = decode::address(&resource("any".to_owned(), ADDRESS, data.to_vec()));
    let Ok(body) = wire::Workload::decode(data) else { return };
    let name = body.uid.clone();
    let body = wire::Address { r#type: Some(Type::Workload(body)) };
    let resource = resource(name.clone(), ADDRESS, body.encode_to_vec());
    let Some(decoded) = decoded(&resource) else { return };
    let Address::Workload(workload) = decoded else { panic!("{decoded:?}") };
    assert!(!workload.uid.is_empty() && *workload.uid == *name);
    let identity = workload.identity();
    assert_eq!(identity.to_string().parse::<Identity>(), Ok(identity));
    for address in &workload.addresses {
        assert_eq!(*address, address.to_canonical());
    }
    workload.waypoint.iter().chain(&workload.network_gateway).for_each(|at| gateway(at));
    for (service, map) in &workload.services {
        assert_eq!(service.to_string().parse().as_ref(), Ok(service));
        ports(map);
    }
    for policy in &workload.authorization_policies {
        assert!(
            policy.split_once('/').is_some_and(|(namespace, name)| !namespace.is_empty() && !name.is_empty())
        );
    }
    assert!(workload.application_tunnel.is_none_or(|tunnel| tunnel.port != Some(0)));
}

/// A service.
///
/// # Panics
/// When something does not hold.
pub fn xds_service(data: &[u8]) {
    let Ok(body) = wire::Service::decode(data) else { return };
    let name = format!("{}/{}", body.namespace, body.hostname);
    let claimed = body.addresses.len();
    let body = wire::Address { r#type: Some(Type::Service(body)) };
    let resource = resource(name.clone(), ADDRESS, body.encode_to_vec());
    let Some(decoded) = decoded(&resource) else { return };
    let Address::Service(service) = decoded else { panic!("{decoded:?}") };
    assert_eq!(name.parse(), Ok(service.key()));
    assert_eq!(service.vips.len() + service.cidr_vips.len(), claimed);
    service.vips.iter().for_each(address);
    for range in &service.cidr_vips {
        assert!(range.cidr.prefix_len() < range.cidr.max_prefix_len());
        net(&range.cidr);
    }
    ports(&service.ports);
    let weighted = service.weighted_waypoints.iter().map(|weighted| &weighted.destination);
    service.waypoint.as_deref().into_iter().chain(weighted).for_each(gateway);
}

/// A policy.
///
/// # Panics
/// When something does not hold.
pub fn xds_authorization(data: &[u8]) {
    let Ok(body) = security::Authorization::decode(data) else {
        let _ = decode::authorization(&resource("any".to_owned(), AUTHORIZATION, data.to_vec()));
        return;
    };
    let name = format!("{}/{}", body.namespace, body.name);
    let resource = resource(name.clone(), AUTHORIZATION, data.to_vec());
    let decoded = decode::authorization(&resource);
    assert_eq!(decoded, decode::authorization(&resource));
    let Ok(policy) = decoded else { return };
    assert_eq!(policy.key(), name);
    assert_eq!(policy.rules.len(), body.rules.len());
    for (rule, wire) in policy.rules.iter().zip(&body.rules) {
        assert_eq!(rule.clauses.len(), wire.clauses.len());
        for (clause, wire) in rule.clauses.iter().zip(&wire.clauses) {
            assert_eq!(clause.matches.len(), wire.matches.len());
            for (condition, wire) in clause.matches.iter().zip(&wire.matches) {
                check(condition, wire, policy.action);
            }
        }
    }
}

fn check(condition: &Match, wire: &security::Match, action: Action) {
    if !wire.extensions.is_empty() {
        // Nothing is allowed, and something is denied.
        assert_eq!(*condition == Match::default(), action == Action::Allow);
        return;
    }
    assert_eq!(condition.principals.len(), wire.principals.len());
    assert_eq!(condition.not_principals.len(), wire.not_principals.len());
    assert_eq!(condition.namespaces.len(), wire.namespaces.len());
    assert_eq!(condition.not_namespaces.len(), wire.not_namespaces.len());
    assert_eq!(condition.source_ips.len(), wire.source_ips.len());
    assert_eq!(condition.not_source_ips.len(), wire.not_source_ips.len());
    let ranges = [&condition.source_ips, &condition.not_source_ips];
    let destinations = [&condition.destination_ips, &condition.not_destination_ips];
    ranges.into_iter().chain(destinations).flatten().for_each(net);
    let ports = condition.destination_ports.iter().chain(&condition.not_destination_ports);
    assert!(ports.clone().all(|port| *port != 0));
    assert_eq!(ports.count(), wire.destination_ports.len() + wire.not_destination_ports.len());
}

fn address(address: &NetworkAddress) {
    assert_eq!(address.address, address.address.to_canonical());
}

fn net(net: &IpNet) {
    assert_eq!(*net, net.trunc());
}

fn ports(ports: &PortMap) {
    assert!(ports.keys().all(|port| *port != 0));
}

fn gateway(gateway: &GatewayAddress) {
    assert_ne!(gateway.hbone_mtls_port, 0);
    match &gateway.destination {
        GatewayDestination::Address(at) => address(at),
        GatewayDestination::Hostname(name) => assert_eq!(name.to_string().parse().as_ref(), Ok(name)),
    }
}
