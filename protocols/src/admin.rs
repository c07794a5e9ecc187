//! What the command line asks the agent: one JSON message a datagram (`SOCK_SEQPACKET`).
//!
//! Both sides state a version and refuse another one; unknown fields are ignored so that fields can be added.

use std::io;
use std::net::{IpAddr, SocketAddr};

use serde::{Deserialize, Serialize};
use thiserror::Error;

use crate::levels::LevelChange;

/// Version of the messages, and of their answers.
pub const VERSION: u32 = 1;
/// Longest message in bytes, in both directions.
pub const MAX_MESSAGE: usize = 64 * 1024;

/// A message that cannot be used.
#[derive(Debug, Error)]
pub enum ProtocolError {
    /// No message of ours.
    #[error("not a message of the admin protocol: {0}")]
    Malformed(#[from] serde_json::Error),
    /// The other side is of another release.
    #[error(
        "the other side speaks version {0} of the admin protocol, this one {VERSION}: agent and command are of different \
         releases"
    )]
    Version(u32),
}

/// What is asked.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Request {
    /// [`VERSION`] of the sender.
    pub version: u32,
    /// For what.
    pub command: Command,
    /// Only of the pods of this name, or of the one of `namespace/name`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pod: Option<String>,
}

/// The commands.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Command {
    /// Inspect node and pods.
    Verify,
    /// The agent in short.
    Status,
    /// Every pod, one by one.
    Pods,
    /// Every connection, one by one.
    Connections,
    /// Every certificate, one by one.
    Certificates,
    /// What has happened.
    Events {
        /// After the event of this number.
        after: u64,
    },
    /// Why a connection would go where it goes.
    Trace(TraceQuestion),
    /// What policy says of a connection.
    Policy(PolicyQuestion),
    /// Show what is logged, and change it.
    Logging(LevelChange),
    /// The configuration in force.
    Config,
    /// The metrics.
    Metrics,
    /// How long connections take, counted from now on.
    ConnectTimes {
        /// For so long, unless it is asked again.
        seconds: u64,
    },
}

/// Who would connect, and where to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceQuestion {
    /// A pod, a uid or an address.
    pub from: String,
    /// Where to; without, only what is known of the source is told.
    #[serde(default)]
    pub to: Option<SocketAddr>,
}

/// A question about a connection that nobody makes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PolicyQuestion {
    /// Who the client proves to be, as a SPIFFE identity; none for one that comes in plaintext.
    pub from: Option<String>,
    /// The client's address; that of a workload with this identity if it is not said.
    #[serde(default)]
    pub source: Option<IpAddr>,
    /// The server: a pod, a uid or an address.
    pub to: String,
    /// The server's port.
    pub port: u16,
}

#[derive(Deserialize)]
struct Stated {
    version: u32,
}

/// Whether a message is of this release: the version first, for one of another may differ in anything else.
///
/// # Errors
/// When it states another version, or none.
pub fn check_version(bytes: &[u8]) -> Result<(), ProtocolError> {
    match serde_json::from_slice::<Stated>(bytes)?.version {
        VERSION => Ok(()),
        other => Err(ProtocolError::Version(other)),
    }
}

impl Request {
    /// Of this release.
    pub fn new(command: Command, pod: Option<String>) -> Self {
        Self { version: VERSION, command, pod }
    }

    /// The bytes to send.
    ///
    /// # Errors
    /// None that is known of.
    pub fn encode(&self) -> io::Result<Vec<u8>> {
        Ok(serde_json::to_vec(self)?)
    }

    /// Reads a request.
    ///
    /// # Errors
    /// A [`ProtocolError`] that says what is wrong.
    pub fn decode(bytes: &[u8]) -> Result<Self, ProtocolError> {
        check_version(bytes)?;
        Ok(serde_json::from_slice(bytes)?)
    }
}
