//! What a tunnel that arrives at a workload is connected to.
//!
//! Invariant: whatever a peer asks for, the address is the one its tunnel arrived at, so it can reach no other
//! workload; only the port follows from the request, and it is never the mesh's own.

use std::net::{IpAddr, SocketAddr};

use crate::HBONE_PORT;
use crate::address::Place;
use crate::route::{Authority, members, target_port};
use crate::service::Service;
use crate::snapshot::Snapshot;
use crate::workload::{ApplicationTunnel, GatewayAddress, PortMap, Workload};

/// Why a tunnel that arrives is not connected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum InboundRefusal {
    /// The authority names someone else. To be answered with 400.
    #[error("the tunnel arrived at {connected} but asks for {authority}, which is not served there")]
    Mismatch {
        /// Where it arrived.
        connected: SocketAddr,
        /// What it asks for.
        authority: Authority,
    },
    /// The authority names a service that the workload does not serve. To be answered with 503.
    #[error("the workload does not serve {host}")]
    UnknownService {
        /// The service's hostname.
        host: String,
    },
    /// The service has no such port. To be answered with 503.
    #[error("service {host} has no port {port} at this workload")]
    UnknownPort {
        /// The service's hostname.
        host: String,
        /// The port.
        port: u16,
    },
    /// The port is the mesh's own. To be answered with 503.
    #[error("attempted recursive call to ourselves")]
    ReservedPort(u16),
}

/// What a tunnel that arrived at `connected` for the workload `local` is connected to.
///
/// # Errors
/// An [`InboundRefusal`] where the authority is not this workload's to serve.
pub fn destination(
    snapshot: &Snapshot,
    local: &Workload,
    connected: SocketAddr,
    authority: &Authority,
) -> Result<SocketAddr, InboundRefusal> {
    let tunnel = application_tunnel(snapshot, local, connected, authority);
    let port = match authority {
        Authority::Address(target) => {
            let own = target.ip().to_canonical() == connected.ip().to_canonical();
            if !own && tunnel.is_none() && !fronts_address(snapshot, local, target.ip()) {
                return Err(InboundRefusal::Mismatch { connected, authority: authority.clone() });
            }
            target.port()
        }
        Authority::Host { host, port } => match served_port(snapshot, local, host, *port) {
            Some(target) => target?,
            None if tunnel.is_some() || fronts_host(snapshot, local, host) => *port,
            None => return Err(InboundRefusal::UnknownService { host: host.to_string() }),
        },
    };
    match tunnel.and_then(|tunnel| tunnel.port).unwrap_or(port) {
        HBONE_PORT => Err(InboundRefusal::ReservedPort(HBONE_PORT)),
        port => Ok(SocketAddr::new(connected.ip(), port)),
    }
}

/// How the application takes this connection, if it takes those for others and this is one: the authority names
/// neither the address the tunnel arrived at nor a service that the workload serves.
pub fn application_tunnel(
    snapshot: &Snapshot,
    local: &Workload,
    connected: SocketAddr,
    authority: &Authority,
) -> Option<ApplicationTunnel> {
    let own = match authority {
        Authority::Address(target) => target.ip().to_canonical() == connected.ip().to_canonical(),
        Authority::Host { host, port } => served_port(snapshot, local, host, *port).is_some(),
    };
    local.application_tunnel.filter(|_| !own)
}

/// The workload's port for a port of a service it serves; `None` if it does not serve the service.
fn served_port(
    snapshot: &Snapshot,
    local: &Workload,
    host: &str,
    port: u16,
) -> Option<Result<u16, InboundRefusal>> {
    let none = PortMap::new();
    let mut of_host = local.services.iter().filter(|(key, _)| *key.hostname == *host).peekable();
    of_host.peek()?;
    let target = of_host.find_map(|(key, ports)| {
        let service_ports = snapshot.service(key).map_or(&none, |service| &service.ports);
        target_port(service_ports, ports, port)
    });
    Some(target.ok_or_else(|| InboundRefusal::UnknownPort { host: host.to_owned(), port }))
}

/// Whether the workload is the waypoint of what has this address.
fn fronts_address(snapshot: &Snapshot, local: &Workload, address: IpAddr) -> bool {
    let address = Place::new(&local.network, address);
    snapshot
        .service_by_vip(address, &local.namespace)
        .is_some_and(|service| fronts_service(snapshot, local, service))
        || snapshot
            .workload_by_address(address)
            .and_then(|workload| workload.waypoint.as_ref())
            .is_some_and(|waypoint| is_member(snapshot, local, waypoint))
}

/// Whether the workload is a waypoint of a service of this hostname.
fn fronts_host(snapshot: &Snapshot, local: &Workload, host: &str) -> bool {
    snapshot.services_by_hostname(host).any(|service| fronts_service(snapshot, local, service))
}

fn fronts_service(snapshot: &Snapshot, local: &Workload, service: &Service) -> bool {
    let weighted = service.weighted_waypoints.iter().map(|waypoint| &waypoint.destination);
    service
        .waypoint
        .as_deref()
        .into_iter()
        .chain(weighted)
        .any(|waypoint| is_member(snapshot, local, waypoint))
}

fn is_member(snapshot: &Snapshot, local: &Workload, gateway: &GatewayAddress) -> bool {
    members(snapshot, gateway, &local.namespace).iter().any(|member| member.uid == local.uid)
}

#[cfg(test)]
mod tests;
