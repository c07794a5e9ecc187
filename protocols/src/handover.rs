//! What two agents say to each other: one JSON message a datagram, descriptors riding along.
//!
//! The new agent sends an [`Ask`]; the old one answers with one [`Answer::Node`], an [`Answer::Pod`] for each pod and
//! [`Answer::End`], or with [`Answer::Refused`]. The new one then says [`Taken`], the old one [`Answer::Yours`]. Both state a
//! version and refuse another one; unknown fields and sockets of unknown names are ignored, so that either can be added.

use std::path::PathBuf;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Version of the messages in this module.
pub const VERSION: u32 = 1;
/// Longest message in bytes, in both directions.
pub const MAX_MESSAGE: usize = 16 * 1024;

/// A message that cannot be used.
#[derive(Debug, Error)]
pub enum MessageError {
    /// No message of ours, or not the one that is due.
    #[error("not a message of the hand-over protocol: {0}")]
    Malformed(#[from] serde_json::Error),
    /// The other side is of another release.
    #[error("the other agent speaks version {0} of the hand-over protocol, this one {VERSION}")]
    Version(u32),
}

/// The new agent asks to take over.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ask {
    /// Where it pins; another place is another installation.
    pub bpffs: PathBuf,
    /// Its release.
    pub release: String,
}

/// The new agent serves all that it was given.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Taken {
    /// Pods that it took over.
    pub pods: usize,
}

/// What the old agent says.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Answer {
    /// It goes on by itself.
    Refused {
        /// Why.
        why: String,
    },
    /// The node's own sockets ride along.
    Node {
        /// Its release.
        release: String,
        /// What each is for.
        sockets: Vec<String>,
    },
    /// The sockets of a pod ride along.
    Pod {
        /// The kernel's number of its namespace.
        cookie: u64,
        /// What each is for.
        sockets: Vec<String>,
    },
    /// That was all.
    End,
    /// From now on the new agent alone changes anything.
    Yours,
}

#[derive(Serialize, Deserialize)]
struct Envelope<T> {
    version: u32,
    #[serde(rename = "say")]
    message: T,
}

#[derive(Deserialize)]
struct Stated {
    version: u32,
}

/// The bytes to send.
///
/// # Errors
/// Where a path of the message is no text.
pub fn encode(message: &impl Serialize) -> Result<Vec<u8>, MessageError> {
    Ok(serde_json::to_vec(&Envelope { version: VERSION, message })?)
}

/// Reads a message.
///
/// # Errors
/// A [`MessageError`] that says what is wrong.
pub fn decode<T: DeserializeOwned>(bytes: &[u8]) -> Result<T, MessageError> {
    // The version first: a message of another release may differ in anything else.
    match serde_json::from_slice::<Stated>(bytes)?.version {
        VERSION => Ok(serde_json::from_slice::<Envelope<T>>(bytes)?.message),
        other => Err(MessageError::Version(other)),
    }
}
