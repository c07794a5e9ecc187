//! The plugin's side of the conversation with the agent: connect, one request, one response.
//!
//! Bounded as a whole: what is left of the time after one step bounds the next. Nothing is retried here; the kubelet
//! does that.

use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use linux::fdpass::Connection;
use thiserror::Error;

use crate::protocol::{Failure, MAX_MESSAGE, Outcome, ProtocolError, Request, Response};

/// Why there is no outcome.
#[derive(Debug, Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("connecting to {path}: {source}")]
    Unreachable {
        /// The agent's socket.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// The agent took the request and did not answer in time.
    #[error("no answer from the agent at {path} within {limit:?}")]
    Silent {
        /// The agent's socket.
        path: PathBuf,
        /// The limit.
        limit: Duration,
    },
    /// The connection broke.
    #[error("{operation} the agent at {path}: {source}")]
    Broken {
        /// `sending to` or `receiving from`.
        operation: &'static str,
        /// The agent's socket.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
    /// Something else than a response came.
    #[error(transparent)]
    Garbled(#[from] ProtocolError),
    /// The agent says why not.
    #[error("the agent answers: {} ({})", .0.msg, .0.details)]
    Refused(Failure),
}

impl ClientError {
    /// Whether there is nobody who would decide, as opposed to somebody who says no or speaks another language.
    pub fn is_absence(&self) -> bool {
        matches!(self, Self::Unreachable { .. } | Self::Silent { .. } | Self::Broken { .. })
    }
}

/// Asks the agent at `path`, and waits for at most `limit` in all.
pub fn ask(
    path: &Path,
    limit: Duration,
    request: &Request,
    netns: Option<BorrowedFd<'_>>,
) -> Result<Outcome, ClientError> {
    let started = Instant::now();
    let silent = || ClientError::Silent { path: path.to_owned(), limit };
    let remaining = || limit.checked_sub(started.elapsed()).filter(|d| !d.is_zero()).ok_or_else(silent);
    let broken = |operation: &'static str| {
        move |source: io::Error| match source.kind() {
            io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut => silent(),
            _ => ClientError::Broken { operation, path: path.to_owned(), source },
        }
    };

    let bytes = request.encode()?;
    let connection = Connection::connect(path, limit)
        .map_err(|source| ClientError::Unreachable { path: path.to_owned(), source })?;
    connection.set_timeout(remaining()?).map_err(broken("sending to"))?;
    connection.send(&bytes, netns.as_slice()).map_err(broken("sending to"))?;
    connection.set_timeout(remaining()?).map_err(broken("receiving from"))?;
    // Descriptors that come with the answer are not ours to have: they are closed here.
    let (answer, _) = connection.recv(MAX_MESSAGE).map_err(broken("receiving from"))?;
    if answer.is_empty() {
        let source = io::Error::new(io::ErrorKind::UnexpectedEof, "closed without an answer");
        return Err(broken("receiving from")(source));
    }
    Response::decode(&answer)?.into_result()?.map_err(ClientError::Refused)
}
