//! What a certificate authority was asked, and what it answered.

use anyhow::Result;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Deserializer};

/// One call.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Call {
    /// What it shows.
    pub about: String,
    /// For whom it asks.
    pub identity: String,
    /// For how many seconds.
    pub validity_duration: u64,
    /// The request as on the wire.
    #[serde(rename = "request_raw", deserialize_with = "bytes")]
    pub request: Vec<u8>,
    /// The answer as on the wire; none where it was refused.
    #[serde(default, rename = "response_raw", deserialize_with = "some_bytes")]
    pub response: Option<Vec<u8>>,
    /// The answer's entries, PEM.
    pub cert_chain: Option<Vec<String>>,
    /// Fields of the answer that no description of the protocol has.
    pub unknown_fields: Option<Vec<String>>,
    /// The first certificate, read.
    pub leaf: Option<serde_json::Value>,
    /// Why it was refused.
    pub error: Option<crate::Closed>,
}

/// The calls of a file: its path below `data` without `.jsonl.gz`.
///
/// # Errors
/// If it is not there, or a line is not understood.
pub fn calls(name: &str) -> Result<Vec<Call>> {
    crate::lines(&format!("{name}.jsonl"))
}

fn bytes<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
    STANDARD.decode(String::deserialize(from)?).map_err(serde::de::Error::custom)
}

fn some_bytes<'de, D: Deserializer<'de>>(from: D) -> Result<Option<Vec<u8>>, D::Error> {
    bytes(from).map(Some)
}
