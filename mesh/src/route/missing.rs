//! What a decision would have to know and does not, where resources are asked for one at a time.
//!
//! With the whole mesh at hand an unknown address is not of the mesh. On demand it may only not have been asked for: then
//! [`missing`] names what to ask for, one step at a time, until the way is known or nothing more can be learned.

use std::fmt;

use super::{Flow, gateway};
use crate::HBONE_PORT;
use crate::address::{NamespacedHostname, NetworkAddress, Place};
use crate::snapshot::Snapshot;
use crate::workload::{GatewayAddress, GatewayDestination};

/// What a resource is asked for by.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Key {
    /// Whoever has this address.
    Address(NetworkAddress),
    /// The service of this name, with its endpoints.
    Hostname(NamespacedHostname),
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Hostname(name) => name.fmt(f),
        }
    }
}

/// What the snapshot does not know of a connection's way: its destination; or, once that is known, the waypoint in front of
/// it and the gateways to the networks of its endpoints. In order, each once.
pub fn missing(snapshot: &Snapshot, flow: &Flow<'_>) -> Vec<Key> {
    let destination = flow.destination.ip().to_canonical();
    if destination.is_loopback() || flow.destination.port() == HBONE_PORT {
        return Vec::new();
    }
    let address = Place { network: flow.network, address: destination };
    let namespace = &*flow.source.namespace;
    let mut keys: Vec<Key> = if let Some(service) = snapshot.service_by_vip(address, namespace) {
        let waypoints = service.waypoint.as_deref().into_iter();
        let waypoints =
            waypoints.chain(service.weighted_waypoints.iter().map(|weighted| &weighted.destination));
        let key = service.key();
        let gateways = snapshot
            .endpoints(&key)
            .filter(|endpoint| *endpoint.workload.network != *flow.network)
            .filter_map(|endpoint| endpoint.workload.network_gateway.as_deref());
        let unknown = |gateway| unknown(snapshot, gateway, namespace);
        waypoints.filter_map(unknown).chain(gateways.filter_map(unknown)).collect()
    } else if let Some(workload) = snapshot.workload_by_address(address) {
        workload.waypoint.iter().filter_map(|waypoint| unknown(snapshot, waypoint, namespace)).collect()
    } else {
        vec![Key::Address(address.into())]
    };
    keys.sort();
    keys.dedup();
    keys
}

/// What to ask for a gateway by, if there is no workload of it.
fn unknown(snapshot: &Snapshot, gateway: &GatewayAddress, namespace: &str) -> Option<Key> {
    gateway::members(snapshot, gateway, namespace).is_empty().then(|| match &gateway.destination {
        GatewayDestination::Address(address) => Key::Address(address.clone()),
        GatewayDestination::Hostname(name) => Key::Hostname(name.clone()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::service::{Service, WeightedWaypoint};
    use crate::testing::{gateway_by_address, gateway_by_host, pod, service, snapshot, socket};
    use crate::workload::Workload;

    fn ask(mesh: &Snapshot, destination: &str) -> Vec<String> {
        let source = pod("client", &["10.0.0.1"]);
        let flow = Flow {
            source: &source,
            source_address: source.addresses[0],
            destination: socket(destination),
            network: "",
            pick: 0,
            exclude: &[],
        };
        missing(mesh, &flow).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn the_destination_comes_first_then_what_stands_before_it() {
        let web = Workload { waypoint: Some(gateway_by_host("gate").into()), ..pod("web", &["10.0.0.2"]) };
        let gate = pod("gate-1", &["10.0.0.9"]).serving("gate", [(15008, 15008)]);
        let split = Service {
            waypoint: Some(gateway_by_address("/10.0.0.9").into()),
            weighted_waypoints: vec![WeightedWaypoint { destination: gateway_by_host("canary"), weight: 1 }],
            ..service("split", &["/10.1.0.1"])
        };
        let far = Workload {
            network: "west".into(),
            network_gateway: Some(gateway_by_address("west/172.16.0.1").into()),
            ..pod("far", &["10.0.0.2"])
        };
        let far = far.serving("split", [(80, 8080)]);
        let empty = Snapshot::default();
        assert_eq!(ask(&empty, "10.0.0.2:80"), ["/10.0.0.2"]);
        assert_eq!(ask(&empty, "[::ffff:10.0.0.2]:80"), ["/10.0.0.2"]);
        assert_eq!(ask(&empty, "127.0.0.1:80"), [""; 0]);
        assert_eq!(ask(&empty, "10.0.0.2:15008"), [""; 0]);
        assert_eq!(ask(&snapshot([web.clone()], [], []), "10.0.0.2:80"), ["default/gate.example"]);
        let known = snapshot([web, gate.clone()], [service("gate", &[])], []);
        assert_eq!(ask(&known, "10.0.0.2:80"), [""; 0]);
        let mesh = snapshot([far], [split], []);
        assert_eq!(ask(&mesh, "10.1.0.1:80"), ["/10.0.0.9", "west/172.16.0.1", "default/canary.example"]);
    }
}
