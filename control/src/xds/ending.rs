//! How a stream ended, and whether that was to be expected.

use std::error::Error;
use std::fmt;

use tonic::{Code, Status};

use super::kind::Kind;
use crate::grpc::{self, ConnectError, TokenError};

/// What servers of the field say when they close a stream because of its age, or because they are told to stop.
const EXPECTED: [&str; 2] = ["max_age", "graceful_stop"];

/// How a stream ended, or why there was none.
#[derive(Debug)]
pub(super) enum Ending {
    /// There was no connection.
    NotConnected(ConnectError),
    /// There was no token.
    NoToken(TokenError),
    /// The call was answered with a status in place of a stream.
    Refused(Box<Status>),
    /// With a status.
    Failed(Box<Status>),
    /// The control plane closed it without one.
    Complete,
    /// No response came in time for this type.
    Silent(Kind),
    /// A request could not be sent in time.
    Stuck,
    /// A fresh one is needed.
    Fresh,
    /// A response could not be taken over, because of a fault of ours.
    Lost(String),
}

impl Ending {
    pub(super) fn refused(status: Status) -> Self {
        Self::Refused(Box::new(status))
    }

    pub(super) fn failed(status: Status) -> Self {
        Self::Failed(Box::new(status))
    }

    /// Whether it is no sign of trouble.
    pub(super) fn is_expected(&self) -> bool {
        match self {
            Self::Complete | Self::Fresh => true,
            Self::Failed(status) => was_closed_in_order(status),
            Self::NotConnected(_)
            | Self::NoToken(_)
            | Self::Refused(_)
            | Self::Silent(_)
            | Self::Stuck
            | Self::Lost(_) => false,
        }
    }

    /// The label that it is counted under: as the field does, where a connection that went away is no error, whether that was
    /// announced or not, and no stream at all is one of the connection.
    pub(super) fn reason(&self) -> &'static str {
        match self {
            Self::NotConnected(_) | Self::NoToken(_) | Self::Refused(_) => "ConnectionError",
            Self::Complete => "Complete",
            Self::Failed(status) if went_away(status) => "Reconnect",
            _ if self.is_expected() => "Reconnect",
            _ => "Error",
        }
    }
}

impl fmt::Display for Ending {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotConnected(error) => error.fmt(f),
            Self::NoToken(error) => error.fmt(f),
            Self::Refused(status) | Self::Failed(status) => f.write_str(&grpc::status(status)),
            Self::Complete => f.write_str("the control plane closed the stream"),
            Self::Silent(kind) => write!(f, "the control plane did not send {kind} in time"),
            Self::Stuck => f.write_str("the control plane does not read what it is sent"),
            Self::Fresh => f.write_str("a key has to be asked for on a fresh stream"),
            Self::Lost(reason) => write!(f, "a response could not be taken over: {reason}"),
        }
    }
}

/// Whether nobody chose this status: the transport has it for what ends in the middle.
fn went_away(status: &Status) -> bool {
    matches!(status.code(), Code::Unknown | Code::Cancelled | Code::DeadlineExceeded)
}

/// GOAWAY without an error, or the peer's orderly end of the connection, which follows such a GOAWAY.
fn was_closed_in_order(status: &Status) -> bool {
    if status.code() == Code::Unavailable && EXPECTED.iter().any(|word| status.message().contains(word)) {
        return true;
    }
    let mut next = status.source();
    while let Some(cause) = next {
        if let Some(h2) = cause.downcast_ref::<h2::Error>() {
            let away = h2.is_go_away() && h2.reason() == Some(h2::Reason::NO_ERROR);
            let ended = h2.get_io().is_some_and(|io| io.kind() == std::io::ErrorKind::BrokenPipe);
            return away || ended;
        }
        next = cause.source();
    }
    false
}
