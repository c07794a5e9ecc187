//! The data path as a whole: two nodes, real sockets, real TLS, on loopback.

mod budget;
mod carry;
mod crowd;
mod demand;
mod dns;
mod gate;
mod goaway;
mod networks;
mod patience;
mod peer;
mod policy;
mod pool;
mod raw;
mod refuse;
mod release;
mod resets;
mod retry;
mod revoked;
mod same_node;
mod service;
mod slow;
mod stalls;
mod unprocessed;
mod world;
