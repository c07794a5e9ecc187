//! The chained CNI plugin: what it reads, what it asks the agent, what it answers the container runtime.
//!
//! [`protocol`] is also what the agent speaks, and [`ambient`] what it decides by. The rest is the plugin: [`plugin::run`] is
//! a function from environment and stdin to stdout and exit status, so that everything but the process itself can be tested.
//!
//! Invariant: a pod of which the agent has not said "captured" or "not in the mesh" does not start; a pod that is not
//! Kubernetes' or is in an excluded namespace never waits for the agent; where the agent is not there, another one starts only
//! if it is known not to be in the mesh ([`absent`]). Stdout is the runtime's alone.

#![forbid(unsafe_code)]

pub mod absent;
pub mod ambient;
pub mod api;
pub mod client;
pub mod config;
pub mod error;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod invocation;
pub mod kubeconfig;
pub mod plugin;
pub mod protocol;
