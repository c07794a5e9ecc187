//! What the admin interface shows of this node: pods, connections, certificates.

use std::sync::Arc;

use control::certificates::State;
use mesh::Identity;
use tunnel::{ConnectionInfo, Tunnel};

use crate::certificates::Certificates;
use crate::enrollment::{Enroller, PodKey, PodState};

/// Looked at when it is asked for; looking changes nothing.
pub(crate) trait Node: Send + Sync {
    /// The pods that are to be in the mesh and are on this node.
    fn pods(&self) -> Vec<(PodKey, PodState)>;
    /// The connections there are now.
    fn connections(&self) -> Vec<ConnectionInfo>;
    /// What is known of each identity's certificate.
    fn certificates(&self) -> Vec<(Identity, State)>;
    /// Certificates whose renewal is due and has not succeeded.
    fn overdue_renewals(&self) -> usize;
}

/// The agent's own.
pub(crate) struct Agent {
    /// Knows the pods.
    pub(crate) enroller: Arc<Enroller>,
    /// Knows the connections.
    pub(crate) tunnel: Arc<Tunnel>,
    /// Knows the certificates.
    pub(crate) certificates: Arc<Certificates>,
}

impl Node for Agent {
    fn pods(&self) -> Vec<(PodKey, PodState)> {
        self.enroller.states()
    }

    fn connections(&self) -> Vec<ConnectionInfo> {
        self.tunnel.connections()
    }

    fn certificates(&self) -> Vec<(Identity, State)> {
        self.certificates.states()
    }

    fn overdue_renewals(&self) -> usize {
        self.certificates.overdue()
    }
}
