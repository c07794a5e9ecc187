//! The messages of the control plane's protocols, written by hand from their field numbers.
//!
//! Invariant: nothing here is shared with the agent's client, whose messages are generated from `.proto` files:
//! a field number that is wrong on one side is seen by the tests of the other. Enumerations are plain numbers,
//! so that a test can send one that nobody knows.

#![allow(missing_docs, reason = "the names are those of the wire")]

pub mod ca;
pub mod discovery;
pub mod security;
pub mod workload;
