//! The data path as a whole: two nodes, real sockets, real TLS, on loopback.

mod carry;
mod peer;
mod policy;
mod refuse;
mod resets;
mod world;
