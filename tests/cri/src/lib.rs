//! The plugin and the agent under real container runtimes: containerd with runc, driven over the CRI as a kubelet does, and
//! podman.
//!
//! Two nodes made of namespaces by the harness, each with a containerd, an agent and a conflist of bridge, portmap and ours.
//! Runtimes and plugins are Debian's, unmodified; the image is made here, of `pod-app`. Whatever a test makes is named after its
//! run or lies in the run's directory, and goes when the test ends, however it ends. Every call has a limit.

#![forbid(unsafe_code)]

pub mod calls;
pub mod containerd;
pub mod cri;
pub mod daemon_set;
pub mod image;
pub mod leftovers;
pub mod node;
pub mod podman;
pub mod rootfs;

pub use node::{CriNode, CriPod, PodSpec};

use std::time::Duration;

/// Longest wait for what should come soon; generous, for the machine may be busy.
pub const LIMIT: Duration = Duration::from_secs(60);
/// Port of the pods' HTTP servers.
pub const HTTP: u16 = 8080;
/// The Kubernetes namespace of most pods.
pub const NAMESPACE: &str = "demo";
