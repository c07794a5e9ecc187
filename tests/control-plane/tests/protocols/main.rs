//! The rules of discovery and of the certificate authority, each held by a test that is named after it.
//!
//! The agent's clients speak over real gRPC and TLS to a control plane that shares no message with them. One binary, for
//! it takes long to link.

mod agent;
mod ca_answers;
mod ca_requests;
mod identities;
mod recorded;
mod xds_answers;
mod xds_bad_input;
mod xds_demand;
mod xds_endings;
mod xds_subscription;
mod xds_transport;
