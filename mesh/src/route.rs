//! Where a connection that a pod opens goes.
//!
//! [`plan`] decides from a snapshot alone; resolving names, waiting and dialling are the caller's. Invariant:
//! a destination that the mesh knows never falls back to passthrough because something about it is missing or
//! broken: that is a [`Refusal`].

mod authority;
mod draw;
mod endpoint;
mod gateway;
mod missing;
mod refusal;
mod service;
mod step;
mod unresolved;
mod waypoint;

#[cfg(test)]
mod tests;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use self::draw::Draw;
use self::endpoint::Client;
use self::step::Steps;
use crate::HBONE_PORT;
use crate::address::Place;
use crate::service::Service;
use crate::snapshot::Snapshot;
use crate::workload::{Protocol, Workload};

pub use self::authority::{Authority, AuthorityError};
pub use self::missing::{Key, missing};
pub use self::refusal::Refusal;
pub use self::step::Step;
pub use self::unresolved::Unresolved;
pub(crate) use self::{endpoint::target_port, gateway::members};

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
    /// Uids of workloads that were tried in vain: no service, waypoint or gateway is reached by way of one of them. Where
    /// there is nothing to choose, as for a pod's own address, they change nothing.
    pub exclude: &'a [Arc<str>],
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
///
/// # Errors
/// A [`Refusal`] where the destination is the mesh's to carry but cannot be, and where nobody may go.
pub fn plan(snapshot: &Snapshot, flow: &Flow<'_>) -> Result<Route, Refusal> {
    Planner::new(snapshot, flow).plan()
}

/// Decides as [`plan`] does, and tells what the decision went by, up to where it ended.
pub fn explain(snapshot: &Snapshot, flow: &Flow<'_>) -> (Result<Route, Refusal>, Vec<Step>) {
    let mut planner = Planner { steps: Steps::heard(), ..Planner::new(snapshot, flow) };
    let route = planner.plan();
    (route, planner.steps.into_vec())
}

/// One decision in the making.
struct Planner<'a> {
    snapshot: &'a Snapshot,
    flow: &'a Flow<'a>,
    /// The original destination, canonical.
    destination: SocketAddr,
    draw: Draw,
    steps: Steps,
}

impl<'a> Planner<'a> {
    fn new(snapshot: &'a Snapshot, flow: &'a Flow<'a>) -> Self {
        // Only a mapped address is changed: a link-local one keeps its scope.
        let destination = match flow.destination.ip().to_canonical() {
            IpAddr::V4(ip) => SocketAddr::from((ip, flow.destination.port())),
            IpAddr::V6(_) => flow.destination,
        };
        Self { snapshot, flow, destination, draw: Draw::new(flow.pick), steps: Steps::default() }
    }

    /// Who chooses among endpoints.
    fn client(&self) -> Client<'a> {
        Client { workload: self.flow.source, network: self.flow.network, exclude: self.flow.exclude }
    }

    fn plan(&mut self) -> Result<Route, Refusal> {
        let destination = self.destination;
        if destination.ip().is_loopback() {
            return Err(Refusal::Loopback);
        }
        if destination.port() == HBONE_PORT {
            return Err(Refusal::ReservedPort(HBONE_PORT));
        }
        let snapshot = self.snapshot;
        let address = Place { network: self.flow.network, address: destination.ip() };
        if let Some(service) = snapshot.service_by_vip(address, &self.flow.source.namespace) {
            self.steps.tell(|| Step::Service(service.key()));
            return self.plan_service(service);
        }
        match snapshot.workload_by_address(address) {
            Some(workload) => self.plan_workload(workload),
            None => {
                self.steps.tell(|| Step::Unknown);
                Ok(Route::Passthrough { destination })
            }
        }
    }

    /// The way to a workload that was addressed by its own IP.
    fn plan_workload(&mut self, workload: &Arc<Workload>) -> Result<Route, Refusal> {
        self.steps.tell(|| Step::Workload(Arc::clone(&workload.uid)));
        if let Some(waypoint) = &workload.waypoint {
            if !self.comes_from(waypoint) {
                return self.through_waypoint(waypoint, None);
            }
            self.steps.tell(|| Step::FromWaypoint);
        }
        self.speaks(workload);
        last_leg(workload, self.destination, None, accepted(workload, None))
    }

    fn speaks(&mut self, workload: &Workload) {
        self.steps.tell(|| Step::Speaks { workload: Arc::clone(&workload.uid), protocol: workload.protocol });
    }
}

/// The last leg to a workload, at an address and port of it. Its tunnel's own port is no application's, and the other
/// end would refuse it.
fn last_leg(
    workload: &Arc<Workload>,
    destination: SocketAddr,
    service: Option<&Arc<Service>>,
    accepted: Vec<String>,
) -> Result<Route, Refusal> {
    let (workload, service) = (Arc::clone(workload), service.cloned());
    match workload.protocol {
        Protocol::Tcp => Ok(Route::Direct { destination, workload, service }),
        Protocol::Hbone if destination.port() == HBONE_PORT => Err(Refusal::ReservedPort(HBONE_PORT)),
        Protocol::Hbone => Ok(Route::Tunnel {
            next_hop: SocketAddr::new(destination.ip(), HBONE_PORT),
            authority: Authority::Address(destination),
            accepted,
            workload,
            service,
            kind: HopKind::Workload,
        }),
    }
}

/// The identities that a workload may show: its own, and those of the service it stands for.
fn accepted(workload: &Workload, service: Option<&Arc<Service>>) -> Vec<String> {
    let mut identities = vec![workload.identity().to_string()];
    for name in service.iter().flat_map(|service| &service.subject_alt_names) {
        if !identities.iter().any(|known| **known == **name) {
            identities.push(name.to_string());
        }
    }
    identities
}
