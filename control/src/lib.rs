//! What feeds the mesh: the file source, the local certificate authority and the certificate manager.
//!
//! Invariant: what cannot be read, parsed or fetched leaves the last good state in force. A bad file changes
//! nothing, a failed renewal keeps the certificate that is still valid.

#![forbid(unsafe_code)]

pub mod ca;
pub mod certificates;
mod clock;
pub mod crl;
pub mod dump;
pub mod file;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
pub mod grpc;
pub mod istio_ca;
pub mod proto;
pub mod watched;
pub mod xds;
