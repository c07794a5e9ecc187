//! Mutual TLS as the mesh speaks it: TLS 1.3, ALPN `h2`, no SNI, SPIFFE identities in the certificates.
//!
//! Owns the rustls configurations and what makes a peer acceptable; it opens no socket. Invariant: a
//! handshake that succeeds has proven the peer's identity, against the roots of *our* certificate. One that resumes a
//! session is held to the same: the certificate that was proven then must be acceptable now, and a session is known to
//! nobody with another certificate, other roots or other names to accept. Failures come out as [`HandshakeError`], which names
//! the certificate's fault in words an operator can act upon.

mod certificate;
mod client;
mod configs;
mod error;
mod last_words;
mod server;
mod spiffe;
#[cfg(test)]
pub(crate) mod tests;

use std::sync::{Arc, LazyLock};

use rustls::crypto::{CryptoProvider, aws_lc_rs};

pub use certificate::{Certificate, CertificateError, CertificateProvider};
pub(crate) use client::Client;
pub(crate) use configs::Configs;
pub use error::HandshakeError;
pub(crate) use last_words::LastWords;
pub(crate) use server::Server;

/// The protocol both ends name in ALPN (RFC 9113 §3.3).
const ALPN_H2: &[u8] = b"h2";

static PROVIDER: LazyLock<Arc<CryptoProvider>> = LazyLock::new(|| {
    Arc::new(CryptoProvider {
        // AES-128 first: it is about a third faster and no weaker against anything practical.
        cipher_suites: vec![
            aws_lc_rs::cipher_suite::TLS13_AES_128_GCM_SHA256,
            aws_lc_rs::cipher_suite::TLS13_AES_256_GCM_SHA384,
        ],
        ..aws_lc_rs::default_provider()
    })
});

fn provider() -> Arc<CryptoProvider> {
    Arc::clone(&PROVIDER)
}
