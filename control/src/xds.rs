//! The client of the control plane's discovery service: incremental (delta) xDS over one stream.
//!
//! Owns the workloads, services and policies of the store it feeds. Invariants: what was taken over stays in force while
//! the control plane is away, however long; a resource that cannot be understood is refused by name and changes nothing,
//! what came with it is taken over all the same; the data path is never held up, neither by a large update nor by a
//! reconnect that brings everything again; nobody is woken where nothing changed.

mod apply;
mod backoff;
mod client;
pub mod decode;
mod demands;
mod ending;
mod kind;
mod metrics;
mod node;
mod session;
mod standing;
mod stream;
mod version;

#[cfg(test)]
mod tests;

pub use self::client::{Client, Config, Synced};
pub use self::kind::{ADDRESS, AUTHORIZATION, Kind};
pub use self::node::{Node, NodeError, Parts};
pub use self::standing::{Standing, Told, TypeStanding};
