//! What a decision about a route went by, for whoever asks why: told by the planner itself, at each turn that it takes.
//!
//! Invariant: a step is told where the decision is made, so that an explanation cannot say anything else than what happens. A connection
//! that is carried is planned without telling, which costs it a comparison with nothing at each turn.

use std::fmt;
use std::sync::Arc;

use crate::address::NamespacedHostname;
use crate::workload::Protocol;

/// One turn of a decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// The destination is an address of this service.
    Service(NamespacedHostname),
    /// The destination is an address of this workload.
    Workload(Arc<str>),
    /// Nobody in the mesh has the destination's address.
    Unknown,
    /// What was addressed has this waypoint in front of it.
    Waypoint(String),
    /// The source is a waypoint of what was addressed, so none is gone through.
    FromWaypoint,
    /// The service leaves the choice of an endpoint to the client: what it addressed is left as it is.
    LeftToClient,
    /// These are the endpoints to choose from, by their uids, all of one rank.
    Endpoints {
        /// Of which service.
        service: NamespacedHostname,
        /// The port that was addressed.
        port: u16,
        /// The uids, in the order of the snapshot.
        among: Vec<Arc<str>>,
    },
    /// This endpoint was chosen, on this port of its own.
    Endpoint {
        /// Its uid.
        workload: Arc<str>,
        /// Its port.
        port: u16,
    },
    /// The workload is on another network, which is reached through its gateway.
    OtherNetwork {
        /// The network.
        network: Arc<str>,
        /// Its gateway, `network/address` or `namespace/hostname`; none if it has none.
        gateway: Option<String>,
    },
    /// The workload speaks this, and so it is spoken to.
    Speaks {
        /// Its uid.
        workload: Arc<str>,
        /// What it speaks.
        protocol: Protocol,
    },
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Service(service) => write!(f, "the address is one of service {service}"),
            Self::Workload(uid) => write!(f, "the address is one of workload {uid}"),
            Self::Unknown => f.write_str("nobody in the mesh has the address"),
            Self::Waypoint(waypoint) => write!(f, "waypoint {waypoint} is in front of it"),
            Self::FromWaypoint => f.write_str("the source is its waypoint, so none is gone through"),
            Self::LeftToClient => f.write_str("the service leaves connections as they are addressed"),
            Self::Endpoints { service, port, among } => {
                write!(f, "service {service} has {} endpoint(s) to choose from for port {port}", among.len())
            }
            Self::Endpoint { workload, port } => write!(f, "chosen: {workload}, port {port}"),
            Self::OtherNetwork { network, gateway: Some(gateway) } => {
                write!(f, "it is on network {network}, behind gateway {gateway}")
            }
            Self::OtherNetwork { network, gateway: None } => {
                write!(f, "it is on network {network}, to which no gateway leads")
            }
            Self::Speaks { workload, protocol: Protocol::Hbone } => {
                write!(f, "{workload} takes tunnels (HBONE)")
            }
            Self::Speaks { workload, protocol: Protocol::Tcp } => {
                write!(f, "{workload} takes no tunnels, so it is spoken to in plaintext")
            }
        }
    }
}

/// Who is told the steps, if anybody is.
#[derive(Debug, Default)]
pub(super) struct Steps(Option<Vec<Step>>);

impl Steps {
    /// To be listened to.
    pub(super) const fn heard() -> Self {
        Self(Some(Vec::new()))
    }

    /// Tells a step, which is made up only if somebody listens.
    pub(super) fn tell(&mut self, step: impl FnOnce() -> Step) {
        if let Some(steps) = &mut self.0 {
            steps.push(step());
        }
    }

    /// All that were told.
    pub(super) fn into_vec(self) -> Vec<Step> {
        self.0.unwrap_or_default()
    }
}
