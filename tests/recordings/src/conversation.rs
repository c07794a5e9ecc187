//! A conversation of a client and a control plane, line by line.

use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::de::Error as _;
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// One line: something that was done, a message, or the end.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Line {
    /// Milliseconds since the start.
    pub ms: u64,
    /// The scenario.
    pub about: Option<String>,
    /// What was done just before what follows.
    pub step: Option<String>,
    /// What the client sent, readable.
    pub sent: Option<Value>,
    /// What it received, readable.
    pub received: Option<Value>,
    /// The bytes of the message, as on the wire; none where there is no message.
    #[serde(default, deserialize_with = "bytes")]
    pub raw: Vec<u8>,
    /// How the stream ended.
    pub closed: Option<Closed>,
}

/// How a stream ended.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Closed {
    /// The gRPC status, as client libraries name it.
    pub code: String,
    /// What came with it.
    pub message: String,
}

/// The conversation of a name: its path below `data` without `.jsonl.gz`.
pub fn conversation(name: &str) -> Result<Vec<Line>> {
    crate::lines(&format!("{name}.jsonl"))
}

fn bytes<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
    STANDARD.decode(String::deserialize(from)?).map_err(D::Error::custom)
}
