//! Real agents against a real Envoy: as waypoint, as client and server of tunnels, as gateway of a network and as
//! ingress gateway.
//!
//! Envoy is the unmodified program, found by `ENVOY_BIN`, with a configuration that the test writes and certificates of the
//! agents' own authority. It lives in a pod that nobody captures, as a waypoint does. Each test makes a world of its own,
//! which goes when the test ends, however it ends; the log of what failed is in the error.

#![forbid(unsafe_code)]

pub mod certificates;
pub mod chance;
pub mod config;
pub mod envoy;
pub mod load;
pub mod world;

pub use certificates::{Credentials, Signer};
pub use envoy::Envoy;
pub use world::World;

use std::time::Duration;

/// Longest wait for what should come soon; generous, for the machine may be busy.
pub const LIMIT: Duration = Duration::from_secs(30);
/// Where tunnels are taken.
pub const HBONE: u16 = 15008;
/// Port of the pods' HTTP servers.
pub const HTTP: u16 = 8080;
/// Port of the pods' echo servers.
pub const ECHO: u16 = 9000;
/// The Kubernetes namespace of all pods.
pub const NAMESPACE: &str = "demo";

/// The SPIFFE identity of an account of [`NAMESPACE`].
pub fn identity(account: &str) -> String {
    format!("spiffe://cluster.local/ns/{NAMESPACE}/sa/{account}")
}
