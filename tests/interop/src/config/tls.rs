//! TLS as the mesh has it: version 1.3, `h2`, certificates on both sides, names compared as SPIFFE identities.

use serde_json::{Value, json};

use super::extension;
use crate::Credentials;

/// Takes clients that show one of `accepted`.
pub(super) fn downstream(own: &Credentials, accepted: &[String]) -> Value {
    extension(
        "tls",
        "envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext",
        json!({ "require_client_certificate": true, "common_tls_context": common(own, accepted) }),
    )
}

/// Takes servers that show one of `accepted`.
pub(super) fn upstream(own: &Credentials, accepted: &[String]) -> Value {
    extension(
        "tls",
        "envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        json!({ "common_tls_context": common(own, accepted) }),
    )
}

/// A name that ends with a slash stands for all that begin so.
fn common(own: &Credentials, accepted: &[String]) -> Value {
    let names: Vec<_> = accepted
        .iter()
        .map(|name| {
            let how = if name.ends_with('/') { "prefix" } else { "exact" };
            json!({ "san_type": "URI", "matcher": { how: name } })
        })
        .collect();
    json!({
        "alpn_protocols": ["h2"],
        "tls_params": { "tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3" },
        "tls_certificates": [{
            "certificate_chain": { "filename": own.chain }, "private_key": { "filename": own.key },
        }],
        "validation_context": {
            "trusted_ca": { "filename": own.roots }, "match_typed_subject_alt_names": names,
        },
    })
}
