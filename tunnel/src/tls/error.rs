//! Why a TLS handshake failed, in words that name the fault and not the library.

use std::io;
use std::time::Duration;

use rustls::CertificateError as Fault;

use super::spiffe::IdentityFault;

/// A failed TLS handshake.
#[derive(Debug, Clone, thiserror::Error)]
pub enum HandshakeError {
    /// The peer proved an identity, but not one that was asked for.
    #[error("peer has identity {presented}, expected {expected}")]
    WrongIdentity {
        /// The SPIFFE names in the peer's certificate.
        presented: String,
        /// The names that would have been accepted.
        expected: String,
    },
    /// The client's identity belongs to another mesh.
    #[error("client has identity {presented}, not of trust domain {trust_domain}")]
    WrongTrustDomain {
        /// The SPIFFE names in the client's certificate.
        presented: String,
        /// Our own trust domain.
        trust_domain: String,
    },
    /// The certificate has no SPIFFE name, or one that cannot be read.
    #[error("peer certificate has no usable SPIFFE identity: {0}")]
    NoIdentity(String),
    /// The peer's certificate is past its end.
    #[error("peer certificate has expired; check the peer's clock and its certificate authority")]
    Expired,
    /// The peer's certificate begins later than now.
    #[error("peer certificate is not valid yet; check the clocks of both nodes")]
    NotYetValid,
    /// The peer's chain leads to none of our roots.
    #[error("peer certificate is signed by an unknown authority; do both sides share a root?")]
    UnknownIssuer,
    /// A list of the authority has the peer's certificate, or one of its chain.
    #[error("peer certificate was revoked")]
    Revoked,
    /// The peer sent no certificate.
    #[error("peer sent no certificate")]
    NoCertificate,
    /// The peer refused ours, or the handshake, with a TLS alert.
    #[error("peer refused the handshake: {0}")]
    Refused(String),
    /// Anything else TLS has to say.
    #[error("tls handshake error: {0}")]
    Protocol(String),
    /// Our own certificate or its roots cannot be used.
    #[error("own certificate is unusable: {0}")]
    OwnCertificate(String),
    /// The connection broke in the middle.
    #[error("connection lost during the tls handshake: {0}")]
    Io(String),
    /// The peer took too long.
    #[error("tls handshake took longer than {0:?}")]
    Timeout(Duration),
}

impl From<io::Error> for HandshakeError {
    fn from(error: io::Error) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>()) {
            Some(tls) => Self::from(tls),
            None => Self::Io(error.to_string()),
        }
    }
}

impl From<&rustls::Error> for HandshakeError {
    fn from(error: &rustls::Error) -> Self {
        match error {
            rustls::Error::InvalidCertificate(fault) => fault.into(),
            rustls::Error::NoCertificatesPresented => Self::NoCertificate,
            rustls::Error::AlertReceived(alert) => Self::Refused(format!("{alert:?}")),
            other => Self::Protocol(other.to_string()),
        }
    }
}

impl From<&Fault> for HandshakeError {
    fn from(fault: &Fault) -> Self {
        match fault {
            Fault::Expired | Fault::ExpiredContext { .. } => Self::Expired,
            Fault::NotValidYet | Fault::NotValidYetContext { .. } => Self::NotYetValid,
            Fault::UnknownIssuer => Self::UnknownIssuer,
            Fault::Revoked => Self::Revoked,
            Fault::Other(other) => match other.0.downcast_ref::<IdentityFault>() {
                Some(fault) => fault.clone().into(),
                None => Self::Protocol(other.0.to_string()),
            },
            other => Self::Protocol(format!("peer certificate: {other}")),
        }
    }
}

impl From<IdentityFault> for HandshakeError {
    fn from(fault: IdentityFault) -> Self {
        match fault {
            IdentityFault::Unreadable(reason) => Self::NoIdentity(reason),
            IdentityFault::NotAccepted { presented, expected } => Self::WrongIdentity { presented, expected },
            IdentityFault::ForeignTrustDomain { presented, trust_domain } => {
                Self::WrongTrustDomain { presented, trust_domain }
            }
        }
    }
}
