//! Why a connection to a peer, or a stream upon it, did not come about.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use crate::tls::{CertificateError, HandshakeError};

/// A dial or a CONNECT that failed. Cheap to clone: everyone who waited for a connection gets it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum ConnectError {
    /// The socket could not be made or connected.
    #[error("io error: {0}")]
    Io(Arc<io::Error>),
    /// The TCP connection was not accepted in time.
    #[error("connection timed out after {0:?}")]
    Timeout(Duration),
    /// The port for tunnels did not answer in time, as when a firewall drops what it gets.
    #[error("connection timed out after {0:?}: a NetworkPolicy may block port 15008 of the peer")]
    Blocked(Duration),
    /// There is no certificate to show.
    #[error(transparent)]
    Certificate(#[from] CertificateError),
    /// The TLS handshake failed.
    #[error(transparent)]
    Tls(#[from] HandshakeError),
    /// The HTTP/2 connection could not be set up, or broke before it answered.
    #[error("http2 error: {0}")]
    Http2(Arc<str>),
    /// The peer did not answer the CONNECT in time.
    #[error("the peer did not answer within {0:?}")]
    NoAnswer(Duration),
    /// The peer refused the CONNECT.
    #[error("http status: {0}")]
    Status(StatusCode),
    /// The authority cannot be put into a request.
    #[error("authority `{0}` cannot be sent")]
    Authority(String),
}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> Self {
        Self::Io(Arc::new(error))
    }
}

impl From<h2::Error> for ConnectError {
    fn from(error: h2::Error) -> Self {
        match error.get_io() {
            // In TLS 1.3 the server judges our certificate after our handshake is done, so its refusal comes
            // as an alert while we wait for an answer. The TLS layer marks what it reports like this.
            Some(io) if io.kind() == io::ErrorKind::InvalidData => {
                Self::Tls(HandshakeError::Refused(io.to_string()))
            }
            _ => Self::Http2(error.to_string().into()),
        }
    }
}
