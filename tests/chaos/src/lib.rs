//! Two nodes with real agents under a steady load, while everything around them fails; and what must hold meanwhile.
//!
//! Three things are watched all the time: nothing of a pod of the mesh is ever on the wire in plaintext, nobody whom policy
//! denies is ever served, and every answer comes from who was asked. When calm has returned, connections succeed again, and
//! the agents hold no more than before: memory, descriptors, rows of eBPF maps. What fails when is a [`plan`] made of a seed,
//! which is printed, so that a storm can be had again; what comes of a single packet is the kernel's chance.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "the storm says what it does")]

pub mod chance;
pub mod fault;
pub mod impairment;
pub mod levels;
pub mod load;
pub mod plan;
pub mod slow;
pub mod soak;
pub mod storm;
pub mod upgrade;
pub mod watch;
pub mod world;
