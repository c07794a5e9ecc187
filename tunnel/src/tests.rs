//! The data path as a whole: two nodes, real sockets, real TLS, on loopback.

mod budget;
mod carry;
mod peer;
mod policy;
mod pool;
mod refuse;
mod resets;
mod service;
mod world;
