//! Real nodes, pods and wires on one machine, for the tests and the demo.
//!
//! A node is a network namespace, a pod another, the network between nodes a third with a bridge in it. Everything is
//! made with iproute2 and the reference CNI plugins as child processes, named after the [`run::Run`] it belongs to, and
//! found again by that name: so it is taken down on drop, after a panic, after a signal, and by the next run if this
//! process was killed. Every wait is bounded; a tool that lacks is named.

#![forbid(unsafe_code)]

pub mod agent;
pub mod app;
pub mod client;
pub mod cni;
pub mod command;
pub mod containers;
pub mod control_plane;
pub mod forge;
pub mod frame;
pub mod inside;
pub mod mesh_file;
pub mod narrator;
pub mod netfilter;
pub mod node;
pub mod ping;
pub mod pod;
pub mod run;
pub mod scenario;
pub mod tap;
pub mod wait;
pub mod wire;

pub use agent::Agent;
pub use app::App;
pub use client::{Attempt, Http, Reply};
pub use cni::CniError;
pub use control_plane::ControlPlane;
pub use mesh_file::MeshFile;
pub use narrator::Narrator;
pub use node::Node;
pub use pod::Pod;
pub use run::Run;
pub use scenario::Scenario;
pub use tap::WireTap;
pub use wait::eventually;
pub use wire::Wire;
