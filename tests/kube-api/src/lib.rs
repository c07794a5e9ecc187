//! A stand-in for the API server of Kubernetes, for tests: objects that a test puts there, served over HTTPS as the API conventions say
//! (discovery, list with paging, watch with bookmarks and `410 Gone`, get, patch, delete, forwarded ports, commands and logs of pods,
//! reviews of access by the roles that a test puts there), and misbehaviour on demand.
//!
//! It shares no code and no message with our client. What it does not have: admission, schemas, access rules for anybody but those who are
//! impersonated, storage. A real API server is tried outside CI.
//!
//! Invariant: a version is given once and grows by one with each change; a watch sees every change after the version that it named
//! in order, or is told that this version is too old. What is deleted in silence is the exception, and why the stand-in exists.

#![forbid(unsafe_code)]

mod access;
mod api;
mod discovery;
mod error;
mod exec;
mod faults;
mod forward;
mod identity;
mod patch;
mod path;
mod protobuf;
mod select;
mod server;
mod store;
mod watch;
mod websocket;

pub use api::{KubeApi, Seen};
pub use faults::Fault;
pub use path::Resource;

/// Pods.
pub const PODS: Resource = Resource::core("pods", "Pod");
/// Namespaces.
pub const NAMESPACES: Resource = Resource::core("namespaces", "Namespace");
/// Nodes.
pub const NODES: Resource = Resource::core("nodes", "Node");
/// DaemonSets.
pub const DAEMON_SETS: Resource = Resource::of("apps/v1", "daemonsets", "DaemonSet");
/// Rights in the whole cluster.
pub const CLUSTER_ROLES: Resource = Resource::rights("clusterroles", "ClusterRole");
/// Who has them.
pub const CLUSTER_ROLE_BINDINGS: Resource = Resource::rights("clusterrolebindings", "ClusterRoleBinding");
/// Rights in a namespace.
pub const ROLES: Resource = Resource::rights("roles", "Role");
/// Who has them there.
pub const ROLE_BINDINGS: Resource = Resource::rights("rolebindings", "RoleBinding");
