//! What istio-cni says to a proxy.

use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer};

/// One message.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// Milliseconds since the start.
    pub ms: u64,
    /// What the proxy said: `hello` or `ack`.
    pub sent: Option<String>,
    /// What istio-cni said, readable.
    pub received: Option<serde_json::Value>,
    /// How many descriptors came with it.
    pub descriptors: Option<usize>,
    /// As on the wire.
    #[serde(deserialize_with = "bytes")]
    pub raw: Vec<u8>,
}

/// The conversation.
///
/// # Errors
/// If a line is not understood.
pub fn conversation() -> Result<Vec<Message>> {
    crate::lines("istio-cni/zds.jsonl")
}

fn bytes<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
    STANDARD.decode(String::deserialize(from)?).map_err(serde::de::Error::custom)
}
