//! Fuzz targets: each takes bytes as a stranger may send them and panics if something does not hold that must.
//!
//! `cargo xtask fuzz TARGET` feeds them with libFuzzer; the test `corpus` replays `corpus/TARGET/*` through the same functions,
//! in every run of the unit tests. What a fuzzer finds is kept there.

#![forbid(unsafe_code)]
#![expect(clippy::indexing_slicing, reason = "a panic is how a target says that something does not hold")]

mod admin;
mod ca;
mod certificate;
mod connect;
mod crl;
mod dns;
mod enrol;
mod handover;
mod kubernetes;
mod mesh_file;
mod plugin;
mod proxy;
mod resolver;
mod xds;
mod zds;

pub use admin::{admin_port, admin_request, log_levels};
pub use ca::ca_response;
pub use certificate::peer_certificate;
pub use connect::{connect_authority, connect_headers};
pub use crl::crl;
pub use dns::dns;
pub use enrol::enrol_messages;
pub use handover::handover_messages;
pub use kubernetes::{ambient_list, kube_answer, kubeconfig};
pub use mesh_file::mesh_file;
pub use plugin::cni_call;
pub use proxy::proxy_protocol;
pub use resolver::resolv_conf;
pub use xds::{xds_authorization, xds_service, xds_workload};
pub use zds::zds_messages;

/// A target.
pub type Target = fn(&[u8]);

/// All targets, by their names.
pub const TARGETS: [(&str, Target); 22] = [
    ("admin_port", admin_port),
    ("admin_request", admin_request),
    ("ambient_list", ambient_list),
    ("ca_response", ca_response),
    ("cni_call", cni_call),
    ("connect_authority", connect_authority),
    ("connect_headers", connect_headers),
    ("crl", crl),
    ("dns", dns),
    ("enrol_messages", enrol_messages),
    ("handover_messages", handover_messages),
    ("kube_answer", kube_answer),
    ("kubeconfig", kubeconfig),
    ("log_levels", log_levels),
    ("mesh_file", mesh_file),
    ("peer_certificate", peer_certificate),
    ("proxy_protocol", proxy_protocol),
    ("resolv_conf", resolv_conf),
    ("xds_authorization", xds_authorization),
    ("xds_service", xds_service),
    ("xds_workload", xds_workload),
    ("zds_messages", zds_messages),
];
