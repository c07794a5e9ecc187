//! The mesh as pure data and pure decisions.
//!
//! What the control plane knows ([`Workload`], [`Service`], [`Policy`]) lives in an immutable [`Snapshot`];
//! what follows from it for a connection is decided by pure functions: [`route::plan`] for one that a pod
//! opens, [`inbound::destination`] for one that arrives, [`authorize::authorize`] for whether it may.
//!
//! Invariant: nothing here does I/O, reads a clock, draws a random number or waits. The same snapshot and the
//! same question give the same answer. What cannot be answered is a refusal, which is data.

#![forbid(unsafe_code)]

pub mod address;
pub mod authorize;
pub mod few;
pub mod identity;
pub mod inbound;
mod interner;
pub mod policy;
pub mod route;
pub mod service;
pub mod snapshot;
pub mod sorted;
pub mod store;
pub mod workload;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

pub use address::{NamespacedHostname, NetworkAddress, NetworkCidr, Place};
pub use authorize::{Connection, DenyReason, Judgement, Verdict, authorize};
pub use few::Few;
pub use identity::Identity;
pub use policy::Policy;
pub use route::{Authority, Flow, HopKind, Refusal, Route, plan};
pub use service::Service;
pub use snapshot::{Endpoint, Snapshot, SnapshotEditor};
pub use sorted::SortedMap;
pub use store::Store;
pub use workload::Workload;

/// The port on which every mesh peer listens for HBONE tunnels.
pub const HBONE_PORT: u16 = 15008;
