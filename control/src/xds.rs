//! The client of the control plane's discovery service: incremental (delta) xDS over one stream.
//!
//! Owns the workloads, services and policies of the store it feeds. Invariants: what was taken over stays in force while
//! the control plane is away, however long; a resource that cannot be understood is refused by name and changes nothing,
//! what came with it is taken over all the same; the data path is never held up, neither by a large update nor by a
//! reconnect that brings everything again; nobody is woken where nothing changed.

pub mod decode;

/// The type of workloads and services.
pub const ADDRESS: &str = "type.googleapis.com/istio.workload.Address";
/// The type of policies.
pub const AUTHORIZATION: &str = "type.googleapis.com/istio.security.Authorization";
