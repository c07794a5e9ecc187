//! Fuzz targets: each takes bytes as a stranger may send them and panics if something does not hold that must.
//!
//! `cargo xtask fuzz TARGET` feeds them with libFuzzer; the test `corpus` replays `corpus/TARGET/*` through the same functions,
//! in every run of the unit tests. What a fuzzer finds is kept there.

#![forbid(unsafe_code)]
#![expect(clippy::indexing_slicing, reason = "a panic is how a target says that something does not hold")]

mod ca;
mod connect;
mod dns;
mod proxy;
mod xds;

pub use ca::ca_response;
pub use connect::{connect_authority, connect_headers};
pub use dns::dns;
pub use proxy::proxy_protocol;
pub use xds::{xds_authorization, xds_service, xds_workload};

/// A target.
pub type Target = fn(&[u8]);

/// All targets, by their names.
pub const TARGETS: [(&str, Target); 8] = [
    ("ca_response", ca_response),
    ("connect_authority", connect_authority),
    ("connect_headers", connect_headers),
    ("dns", dns),
    ("proxy_protocol", proxy_protocol),
    ("xds_authorization", xds_authorization),
    ("xds_service", xds_service),
    ("xds_workload", xds_workload),
];
