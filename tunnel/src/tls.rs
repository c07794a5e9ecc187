//! Mutual TLS as the mesh speaks it: TLS 1.3 (1.2 only where it is allowed), ALPN `h2`, no SNI, SPIFFE identities in the certificates.
//!
//! Owns the rustls configurations and what makes a peer acceptable; it opens no socket. Invariant: a
//! handshake that succeeds has proven the peer's identity, against the roots of *our* certificate. One that resumes a
//! session is held to the same: the certificate that was proven then must be acceptable now, and a session is known to
//! nobody with another certificate, other roots or other names to accept. Failures come out as [`HandshakeError`], which names
//! the certificate's fault in words an operator can act upon.

mod certificate;
mod ciphers;
mod client;
mod clock;
mod configs;
mod error;
mod last_words;
mod options;
mod read_ahead;
mod revocation;
#[cfg(all(test, feature = "schedules"))]
mod schedules;
mod server;
mod spiffe;
#[cfg(test)]
pub(crate) mod tests;

pub use certificate::{Certificate, CertificateError, CertificateProvider};
pub(crate) use client::Client;
pub(crate) use configs::Configs;
pub use error::HandshakeError;
pub(crate) use last_words::LastWords;
pub(crate) use options::Rules;
pub use options::TlsOptions;
pub(crate) use read_ahead::ReadAhead;
pub use revocation::RevocationError;
pub(crate) use revocation::{Session, revoked};
pub(crate) use server::Server;
#[cfg(feature = "fuzzing")]
pub(crate) use spiffe::fuzzing as peer_names;

/// The protocol both ends name in ALPN (RFC 9113 §3.3).
const ALPN_H2: &[u8] = b"h2";
