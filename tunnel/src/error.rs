//! How a connection can end badly, and the one place that turns that into everything it is told as:
//! the log's words, the metric's flag and the tunnel's status code.

use h2::Reason;
use http::StatusCode;
use mesh::DenyReason;

use crate::hbone::ConnectError;
use crate::relay::RelayError;
use crate::tls::{HandshakeError, Session};

/// Why a connection was refused, failed or was cut.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ConnectionError {
    /// The next hop or the application was not reached.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// It broke while bytes were moving.
    #[error(transparent)]
    Relay(#[from] RelayError),
    /// Policy refuses it.
    #[error("connection closed due to policy rejection: {0}")]
    Denied(DenyReason),
    /// The control plane took its workload away before it was decided upon.
    #[error("the workload is not known any more")]
    WorkloadGone,
    /// Policy has come to refuse it.
    #[error("connection closed due to policy change")]
    PolicyChange,
    /// A certificate of the peer has come to be revoked.
    #[error("connection closed: the peer's certificate was revoked")]
    Revoked,
    /// The client that asked for it is gone, or its tunnel is.
    #[error("tunnel lost: {0}")]
    ClientGone(#[from] h2::Error),
    /// The client reset its stream before it was answered.
    #[error("the client gave up before it was answered: {0}")]
    Abandoned(Reason),
    /// The application reset its connection before there was a way on.
    #[error("the application gave up before it was connected")]
    GaveUp,
}

/// How a connection of a session ended. Its tunnel ends with the peer's certificate as well, and the end of the stream may be seen
/// before the cause of it.
pub(crate) fn with_cause(
    result: Result<(), ConnectionError>,
    session: Option<&Session>,
) -> Result<(), ConnectionError> {
    match session {
        Some(session) if session.is_revoked() => Err(ConnectionError::Revoked),
        _ => result,
    }
}

/// The `response_flags` label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Flag {
    None,
    Deny,
    Connect,
    TlsFailure,
    Http2Handshake,
    NetworkPolicy,
    Identity,
    CertRevoked,
}

impl Flag {
    /// Every flag.
    pub(crate) const ALL: [Self; 8] = [
        Self::None,
        Self::Deny,
        Self::Connect,
        Self::TlsFailure,
        Self::Http2Handshake,
        Self::NetworkPolicy,
        Self::Identity,
        Self::CertRevoked,
    ];

    pub(crate) fn label(self) -> &'static str {
        match self {
            Self::None => "-",
            Self::Deny => "DENY",
            Self::Connect => "CONNECT",
            Self::TlsFailure => "TLS_FAILURE",
            Self::Http2Handshake => "H2_HANDSHAKE_FAILURE",
            Self::NetworkPolicy => "NETWORK_POLICY",
            Self::Identity => "IDENTITY_ERROR",
            Self::CertRevoked => "CERT_REVOKED",
        }
    }
}

impl ConnectionError {
    /// The flag the connection is counted under.
    pub(crate) fn flag(&self) -> Flag {
        match self {
            Self::Denied(_) | Self::WorkloadGone | Self::PolicyChange => Flag::Deny,
            Self::Connect(
                ConnectError::Certificate(_) | ConnectError::Tls(HandshakeError::OwnCertificate(_)),
            ) => Flag::Identity,
            Self::Revoked | Self::Connect(ConnectError::Tls(HandshakeError::Revoked)) => Flag::CertRevoked,
            Self::Connect(ConnectError::Blocked(_)) => Flag::NetworkPolicy,
            Self::Connect(ConnectError::Tls(_)) => Flag::TlsFailure,
            Self::Connect(ConnectError::Http2(_)) => Flag::Http2Handshake,
            // As the source of a connection that was denied at once counts it.
            Self::Connect(_) | Self::Relay(RelayError::CutByPeer) => Flag::Connect,
            Self::Relay(_) | Self::ClientGone(_) | Self::Abandoned(_) | Self::GaveUp => Flag::None,
        }
    }

    /// Whether it counts as failed: it never came to carry anything, or policy has ended it, here or at the peer. Whoever alerts
    /// on denials counts both alike.
    pub(crate) fn is_failure(&self) -> bool {
        matches!(
            self,
            Self::Denied(_)
                | Self::WorkloadGone
                | Self::PolicyChange
                | Self::Connect(_)
                | Self::Relay(RelayError::CutByPeer)
        )
    }

    /// Whether it is the application's or its client's own reset, faithfully passed on.
    pub(crate) fn is_reset(&self) -> bool {
        matches!(self, Self::Relay(error) if error.is_reset())
    }

    /// What the client of a tunnel is answered.
    pub(crate) fn status(&self) -> StatusCode {
        match self {
            Self::Denied(_) | Self::PolicyChange | Self::Revoked => StatusCode::UNAUTHORIZED,
            Self::WorkloadGone
            | Self::Connect(_)
            | Self::Relay(_)
            | Self::ClientGone(_)
            | Self::Abandoned(_)
            | Self::GaveUp => StatusCode::SERVICE_UNAVAILABLE,
        }
    }
}
