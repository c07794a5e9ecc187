//! Services.

use std::sync::Arc;

use mesh::Service;
use mesh::service::{
    HealthPolicy, IpFamilies, LoadBalancer, LoadBalancerMode, Scope, Visibility, WeightedWaypoint,
};

use super::Fault;
use super::place::{Place, gateway, place, ports};
use super::text::{name, text};
use crate::proto::workload::load_balancing::{HealthPolicy as HealthWord, Mode, Scope as ScopeWord};
use crate::proto::workload::{self as wire, IpFamilies as FamiliesWord, Visibility as VisibilityWord};

pub(super) fn service(wire: wire::Service) -> Result<Service, Fault> {
    let (mut vips, mut cidr_vips) = (Vec::new(), Vec::new());
    for claimed in &wire.addresses {
        match place("addresses", claimed)? {
            Place::One(address) => vips.push(address),
            Place::Range(range) => cidr_vips.push(range),
        }
    }
    let shares = wire.weighted_waypoints.iter().map(weighted);
    Ok(Service {
        name: text(&wire.name),
        namespace: name("namespace", &wire.namespace)?,
        hostname: name("hostname", &wire.hostname)?,
        vips,
        cidr_vips,
        ports: ports("ports", &wire.ports)?,
        // They are compared as a whole with what a peer shows, so one of another form is one that nobody has.
        subject_alt_names: wire.subject_alt_names.iter().map(|name| text(name)).collect(),
        waypoint: wire.waypoint.as_ref().map(|wire| gateway("waypoint", wire).map(Arc::new)).transpose()?,
        weighted_waypoints: shares.collect::<Result<_, _>>()?,
        load_balancer: wire.load_balancing.as_ref().map(load_balancer).transpose()?.unwrap_or_default(),
        ip_families: ip_families(wire.ip_families)?,
        canonical: wire.canonical,
        visibility: match VisibilityWord::try_from(wire.visibility) {
            Ok(VisibilityWord::Namespace) => Visibility::Namespace,
            Ok(VisibilityWord::Public) | Err(_) => Visibility::Public,
        },
    })
}

fn weighted(wire: &wire::WeightedWaypoint) -> Result<WeightedWaypoint, Fault> {
    let Some(destination) = &wire.destination else {
        return Err(Fault::new("weighted_waypoints", "one has no destination"));
    };
    Ok(WeightedWaypoint { destination: gateway("weighted_waypoints", destination)?, weight: wire.weight })
}

fn load_balancer(wire: &wire::LoadBalancing) -> Result<LoadBalancer, Fault> {
    Ok(LoadBalancer {
        preferences: wire.routing_preference.iter().map(|value| scope(*value)).collect::<Result<_, _>>()?,
        mode: match Mode::try_from(wire.mode) {
            Ok(Mode::UnspecifiedMode) => LoadBalancerMode::Standard,
            Ok(Mode::Strict) => LoadBalancerMode::Strict,
            Ok(Mode::Failover) => LoadBalancerMode::Failover,
            Ok(Mode::Passthrough) => LoadBalancerMode::Passthrough,
            Err(_) => return Err(Fault::unknown("load_balancing.mode", wire.mode)),
        },
        health_policy: match HealthWord::try_from(wire.health_policy) {
            Ok(HealthWord::OnlyHealthy) => HealthPolicy::OnlyHealthy,
            Ok(HealthWord::AllowAll) => HealthPolicy::AllowAll,
            Err(_) => return Err(Fault::unknown("load_balancing.health_policy", wire.health_policy)),
        },
    })
}

fn scope(value: i32) -> Result<Scope, Fault> {
    match ScopeWord::try_from(value) {
        Ok(ScopeWord::Region) => Ok(Scope::Region),
        Ok(ScopeWord::Zone) => Ok(Scope::Zone),
        Ok(ScopeWord::Subzone) => Ok(Scope::Subzone),
        Ok(ScopeWord::Node) => Ok(Scope::Node),
        Ok(ScopeWord::Cluster) => Ok(Scope::Cluster),
        Ok(ScopeWord::Network) => Ok(Scope::Network),
        Ok(ScopeWord::UnspecifiedScope) | Err(_) => {
            Err(Fault::unknown("load_balancing.routing_preference", value))
        }
    }
}

fn ip_families(value: i32) -> Result<IpFamilies, Fault> {
    match FamiliesWord::try_from(value) {
        Ok(FamiliesWord::Automatic) => Ok(IpFamilies::Automatic),
        Ok(FamiliesWord::Ipv4Only) => Ok(IpFamilies::Ipv4Only),
        Ok(FamiliesWord::Ipv6Only) => Ok(IpFamilies::Ipv6Only),
        Ok(FamiliesWord::Dual) => Ok(IpFamilies::Dual),
        Err(_) => Err(Fault::unknown("ip_families", value)),
    }
}
