//! Why a connection is not carried.

use std::net::SocketAddr;

use crate::address::NamespacedHostname;

/// Why a connection is not carried. Printed, it is the error of the access log.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// Addressed to loopback, which is never captured in good order.
    #[error("the destination is a loopback address")]
    Loopback,
    /// Addressed to a port that belongs to the mesh itself.
    #[error("attempted recursive call to ourselves: port {0} is the mesh's own")]
    ReservedPort(u16),
    /// The service has no endpoint that may be used.
    #[error("no healthy upstream: {destination}")]
    NoHealthyEndpoint {
        /// The service.
        service: NamespacedHostname,
        /// What was addressed.
        destination: SocketAddr,
    },
    /// The service has no such port.
    #[error("no healthy upstream: {destination}")]
    UnknownServicePort {
        /// The service.
        service: NamespacedHostname,
        /// What was addressed.
        destination: SocketAddr,
    },
    /// The waypoint in front of the destination is unknown or has no endpoint that may be used.
    #[error("no healthy waypoint {waypoint} for {destination}")]
    NoWaypoint {
        /// The waypoint, as `network/ip` or `namespace/hostname`.
        waypoint: String,
        /// What was addressed.
        destination: SocketAddr,
    },
    /// The destination is on another network and no gateway leads there.
    #[error("no gateway to network {network} for {destination}")]
    NoGateway {
        /// The network.
        network: String,
        /// What was addressed.
        destination: SocketAddr,
    },
    /// The control plane does not know the pod that connects. The caller finds this out, before it plans.
    #[error("the source workload {namespace}/{name} is not known yet")]
    UnknownSource {
        /// The pod's namespace.
        namespace: String,
        /// The pod's name.
        name: String,
    },
}
