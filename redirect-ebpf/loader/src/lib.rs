//! Loads, attaches, pins and verifies capture: the userspace half of the eBPF programs.
//!
//! Owns the node's programs on the root cgroup ([`NodeCapture`]) and, for each pod, its listeners, its program, its policy
//! route and its row in the map of enrolled namespaces ([`Attachment`]). It does not know what happens to a captured
//! connection.
//!
//! Invariant: a pod's row is the last thing to be added and the first to be removed, so that no connection is marked
//! before everything it needs is in place; only the egress guard, which drops what nobody marks, is there for a shorter time.
//! Everything is pinned: when the agent dies, marked connections find no listener
//! and are refused, and nothing passes it by. What failed half-way is undone, unless an earlier agent's capture is there,
//! which stays (refusing) until it can be replaced.

pub mod attachment;
mod borrowed;
pub mod egress;
mod entrances;
mod error;
pub mod events;
pub mod guard;
pub mod layouts;
pub mod leftovers;
pub mod listeners;
pub mod node;
pub mod node_guard;
mod object;
mod others;
pub mod pins;
pub mod probe;
pub mod report;
pub mod sockets;

pub use abi::{Decision, Direction, Guarded, LAYOUT, Steering};
pub use attachment::{Attachment, PodOptions};
pub use egress::Dropped;
pub use entrances::MAX_ENTRANCES;
pub use error::CaptureError;
pub use events::{Decided, Events};
pub use guard::{Guard, Repair};
pub use layouts::OtherLayouts;
pub use listeners::{Listeners, Role};
pub use node::{NodeCapture, Preparation};
pub use node_guard::NodeGuard;
pub use report::{Line, Part, Problem, Report};
pub use sockets::PodSockets;
