//! The messages of the control plane, made from `proto/` at build time.
//!
//! They are as the wire has them: every field may be absent, every enum unknown. What they mean is made of them by
//! decoding, which takes nothing over that it does not understand.

#![allow(clippy::large_enum_variant, reason = "generated, and short-lived")]
#![expect(missing_docs, clippy::pedantic, reason = "generated; what they mean is told in proto/")]

/// Incremental xDS.
pub mod discovery {
    tonic::include_proto!("envoy.service.discovery.v3");
}

/// Workloads and services.
pub mod workload {
    tonic::include_proto!("istio.workload");
}

/// Authorization policies.
pub mod security {
    tonic::include_proto!("istio.security");
}

/// The certificate authority.
pub mod ca {
    tonic::include_proto!("istio.v1.auth");
}
