//! Where a connection that a pod opens goes.
//!
//! [`plan`] decides from a snapshot alone; resolving names, waiting and dialling are the caller's. Invariant:
//! a destination that the mesh knows never falls back to passthrough because something about it is missing or
//! broken: that is a [`Refusal`].

mod authority;
mod refusal;
mod unresolved;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::address::NetworkAddress;
use crate::service::Service;
use crate::snapshot::Snapshot;
use crate::workload::Workload;

pub use self::authority::{Authority, AuthorityError};
pub use self::refusal::Refusal;
pub use self::unresolved::Unresolved;

/// A connection that a captured pod opens.
#[derive(Clone, Copy, Debug)]
pub struct Flow<'a> {
    /// The pod's own workload.
    pub source: &'a Workload,
    /// The address the pod connects from.
    pub source_address: IpAddr,
    /// Where it wants to go.
    pub destination: SocketAddr,
    /// The network the node is on, empty for the default one.
    pub network: &'a str,
    /// A random number; the same one makes the same choice among endpoints.
    pub pick: u64,
}

/// Where a connection goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Route {
    /// Plain TCP to where it was addressed: the mesh does not know the destination, or leaves it alone.
    Passthrough {
        /// The original destination.
        destination: SocketAddr,
    },
    /// Plain TCP to a workload that does not speak HBONE.
    Direct {
        /// Its address and port.
        destination: SocketAddr,
        /// The workload.
        workload: Arc<Workload>,
        /// The service that was addressed, if one was.
        service: Option<Arc<Service>>,
    },
    /// A tunnel to the destination workload or to a waypoint in front of it.
    Tunnel {
        /// Where to dial.
        next_hop: SocketAddr,
        /// What to ask the peer for.
        authority: Authority,
        /// The identities of which the peer must show one.
        accepted: Vec<String>,
        /// The workload at the next hop.
        workload: Arc<Workload>,
        /// The service that was addressed, if one was.
        service: Option<Arc<Service>>,
        /// What the next hop is.
        kind: HopKind,
    },
    /// A tunnel inside a tunnel, by way of the gateway of another network.
    DoubleTunnel {
        /// Where to dial: the gateway.
        next_hop: SocketAddr,
        /// What to ask of both peers: the service's hostname and port.
        authority: Authority,
        /// The identities of which the gateway must show one.
        accepted: Vec<String>,
        /// The identities of which the peer of the inner tunnel must show one: the service's alone.
        inner_accepted: Vec<String>,
        /// The gateway's workload.
        gateway: Arc<Workload>,
        /// The workload that was chosen on the other network.
        workload: Arc<Workload>,
        /// The service that was addressed.
        service: Arc<Service>,
        /// What that workload is.
        kind: HopKind,
    },
    /// The destination is known by name only: resolve it, then ask [`Unresolved::at`].
    Resolve(Unresolved),
}

/// What the next hop of a tunnel is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum HopKind {
    /// The destination workload.
    Workload,
    /// A waypoint.
    Waypoint,
}

/// Decides where a connection goes.
pub fn plan(snapshot: &Snapshot, flow: &Flow<'_>) -> Result<Route, Refusal> {
    let destination = SocketAddr::new(flow.destination.ip().to_canonical(), flow.destination.port());
    if destination.ip().is_loopback() {
        return Err(Refusal::Loopback);
    }
    let address = NetworkAddress::new(flow.network, destination.ip());
    let _ = snapshot.service_by_vip(&address, &flow.source.namespace);
    Ok(Route::Passthrough { destination })
}
