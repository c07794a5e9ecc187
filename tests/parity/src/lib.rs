//! The recorded connections made again: two nodes with agents of ours in place of the peer's, the same pods, the same words of
//! the control plane, and each row of the recording compared with what becomes of the connection here.
//!
//! Everything is real: namespaces, eBPF, the agents' binaries, TLS. What the control plane says is the recorded bytes. A row
//! is *same* if nothing differs but what the recording calls chance, *better* if it differs as `differences.yaml` says that it does on
//! purpose, else *worse*. A row that was not made, and a difference that does not occur, are failures like a worse row.

#![forbid(unsafe_code)]

pub mod agents;
pub mod chance;
pub mod client;
pub mod compare;
pub mod differences;
pub mod live;
pub mod log;
pub mod outcome;
pub mod place;
pub mod report;
pub mod rows;
pub mod series;
pub mod server;
pub mod several;
pub mod step;
pub mod suite;
pub mod world;
