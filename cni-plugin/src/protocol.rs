//! What plugin and agent say to each other: one JSON message a datagram, one request and one response a connection.
//!
//! The transport is [`linux::fdpass`] (`SOCK_SEQPACKET`); with `add` and `check` the descriptor of the pod's network
//! namespace rides along, because the plugin and the agent need not see the same paths. Both sides state a version and
//! refuse another one; unknown fields are ignored so that fields can be added. Whatever does not parse is an error with
//! a sentence in it, never a default.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde::{Deserialize, Serialize};
use thiserror::Error;

/// Version of the messages in this module.
pub const VERSION: u32 = 1;
/// Longest message in bytes, in both directions.
pub const MAX_MESSAGE: usize = 64 * 1024;
/// Annotations that are passed on, and bytes of each.
const MAX_ANNOTATIONS: usize = 32;
const MAX_ANNOTATION: usize = 256;

/// What the plugin asks.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Request {
    /// [`VERSION`] of the sender.
    pub version: u32,
    /// What to do.
    pub command: Command,
    /// The runtime's name for the sandbox, `CNI_CONTAINERID`.
    pub container_id: String,
    /// Path of the pod's network namespace as the runtime names it; empty when it is gone already (a repeated DEL).
    pub netns: String,
    /// The pod's interface, `CNI_IFNAME`.
    pub ifname: String,
    /// The Kubernetes pod, where the runtime named one.
    pub pod: Option<PodName>,
    /// The pod's addresses, from prevResult.
    #[serde(default)]
    pub ips: Vec<IpAddr>,
    /// The pod's annotations that concern a mesh, where the runtime tells them; see [`mesh_annotations`].
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// The network, as the conflist names it: two runtimes on a node have one each.
    #[serde(default)]
    pub network: String,
    /// GC: the sandboxes of the network that are in use.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub valid: Vec<String>,
}

/// Of all annotations of a pod those that concern a mesh; others may be longer than a message.
///
/// Values of more than 256 bytes are cut: of those only that they are there matters (the status of a sidecar).
pub fn mesh_annotations(all: BTreeMap<String, String>) -> BTreeMap<String, String> {
    let concerns = |key: &str| {
        let domain = key.split('/').next().unwrap_or_default();
        domain == "istio.io" || domain.ends_with(".istio.io")
    };
    let cut = |(key, mut value): (String, String)| {
        value.truncate(value.floor_char_boundary(MAX_ANNOTATION));
        (key, value)
    };
    all.into_iter().filter(|(key, _)| concerns(key)).take(MAX_ANNOTATIONS).map(cut).collect()
}

/// The CNI commands that reach the agent.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Command {
    /// Decide whether the pod is in the mesh; if so capture it and verify that.
    Add,
    /// The pod is going.
    Del,
    /// Is what ADD did still in place?
    Check,
    /// Release the pods of a network whose sandboxes are not in use any more.
    Gc,
}

/// Names of a Kubernetes pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodName {
    /// `K8S_POD_NAME`.
    pub name: String,
    /// `K8S_POD_NAMESPACE`.
    pub namespace: String,
    /// `K8S_POD_UID`; older runtimes do not send it.
    #[serde(default)]
    pub uid: Option<String>,
}

/// What the agent answers: an outcome or an error, exactly one of them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Response {
    /// [`VERSION`] of the sender.
    pub version: u32,
    /// What was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Why nothing was done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<Failure>,
}

/// What the agent did.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum Outcome {
    /// ADD: the pod's traffic is captured, and that was verified.
    Enrolled,
    /// ADD, CHECK: the pod is not in the mesh; nothing was touched.
    NotAmbient,
    /// DEL: nothing of the pod is left.
    Released,
    /// CHECK: capture is whole.
    Intact,
    /// GC: of the network nothing is left but what is in use.
    Collected,
}

/// An error in the shape of the CNI specification.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// A code of the specification, or 100 and above.
    pub code: u32,
    /// What to do, in one sentence.
    pub msg: String,
    /// What happened.
    #[serde(default)]
    pub details: String,
}

/// A message that cannot be used.
#[derive(Debug, Error)]
pub enum ProtocolError {
    /// No message of ours at all.
    #[error("{what} is not a message of the enrolment protocol: {source}")]
    Malformed {
        /// `request` or `response`.
        what: &'static str,
        /// Where it stops making sense.
        source: serde_json::Error,
    },
    /// Longer than [`MAX_MESSAGE`].
    #[error("{what} of {length} bytes; at most {MAX_MESSAGE} are allowed")]
    TooLong {
        /// `request` or `response`.
        what: &'static str,
        /// Its length.
        length: usize,
    },
    /// The other side is of another release.
    #[error(
        "{what} has protocol version {found}, this side speaks {VERSION}: plugin and agent are of different releases"
    )]
    Version {
        /// `request` or `response`.
        what: &'static str,
        /// The version it states.
        found: u64,
    },
    /// Neither or both of outcome and error.
    #[error("response must have either an outcome or an error")]
    Ambiguous,
}

impl Request {
    /// The bytes to send.
    pub fn encode(&self) -> Result<Vec<u8>, ProtocolError> {
        encode("request", self)
    }

    /// Reads a request; what does not fit names its place.
    pub fn decode(bytes: &[u8]) -> Result<Self, ProtocolError> {
        decode("request", bytes)
    }
}

impl Response {
    /// The answer that something was done.
    pub fn done(outcome: Outcome) -> Self {
        Self { version: VERSION, outcome: Some(outcome), error: None }
    }

    /// The answer that nothing was done; `code` is one of the CNI specification's or at least 100.
    pub fn failed(code: u32, msg: impl Into<String>, details: impl Into<String>) -> Self {
        let error = Failure { code, msg: msg.into(), details: details.into() };
        Self { version: VERSION, outcome: None, error: Some(error) }
    }

    /// The bytes to send.
    pub fn encode(&self) -> Result<Vec<u8>, ProtocolError> {
        encode("response", self)
    }

    /// Reads a response; what does not fit names its place.
    pub fn decode(bytes: &[u8]) -> Result<Self, ProtocolError> {
        decode("response", bytes)
    }

    /// The outcome, or the error.
    pub fn into_result(self) -> Result<Result<Outcome, Failure>, ProtocolError> {
        match (self.outcome, self.error) {
            (Some(outcome), None) => Ok(Ok(outcome)),
            (None, Some(failure)) => Ok(Err(failure)),
            _ => Err(ProtocolError::Ambiguous),
        }
    }
}

fn encode<T: Serialize>(what: &'static str, message: &T) -> Result<Vec<u8>, ProtocolError> {
    let bytes = serde_json::to_vec(message).map_err(|source| ProtocolError::Malformed { what, source })?;
    check_length(what, &bytes)?;
    Ok(bytes)
}

fn decode<'a, T: Deserialize<'a>>(what: &'static str, bytes: &'a [u8]) -> Result<T, ProtocolError> {
    #[derive(Deserialize)]
    struct Stated {
        version: u64,
    }
    check_length(what, bytes)?;
    // The version first: a message of another release may differ in anything else.
    let malformed = |source| ProtocolError::Malformed { what, source };
    let stated: Stated = serde_json::from_slice(bytes).map_err(malformed)?;
    if stated.version != u64::from(VERSION) {
        return Err(ProtocolError::Version { what, found: stated.version });
    }
    serde_json::from_slice(bytes).map_err(malformed)
}

fn check_length(what: &'static str, bytes: &[u8]) -> Result<(), ProtocolError> {
    if bytes.len() > MAX_MESSAGE {
        return Err(ProtocolError::TooLong { what, length: bytes.len() });
    }
    Ok(())
}

#[cfg(test)]
mod tests;
