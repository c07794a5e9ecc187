//! What a tunnel that arrives at a workload is connected to.

use std::net::SocketAddr;

use crate::route::Authority;
use crate::snapshot::Snapshot;
use crate::workload::Workload;

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
pub fn destination(
    snapshot: &Snapshot,
    local: &Workload,
    connected: SocketAddr,
    authority: &Authority,
) -> Result<SocketAddr, InboundRefusal> {
    let _ = (snapshot, local);
    Err(InboundRefusal::Mismatch { connected, authority: authority.clone() })
}
