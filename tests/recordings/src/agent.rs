//! What the peer's own ports answer: HTTP, and DNS.

use std::collections::BTreeMap;

use anyhow::Result;
use serde::Deserialize;

/// A request over HTTP, and its answer.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// Its method.
    pub method: String,
    /// Whom it asks for what.
    pub url: String,
    /// The answer's status.
    pub status: u16,
    /// The answer's headers.
    pub headers: BTreeMap<String, String>,
    /// The answer, or how it begins.
    pub body: String,
}

/// A question of DNS, and its answer.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    /// The name.
    pub name: String,
    /// The type of record.
    #[serde(rename = "type")]
    pub kind: String,
    /// `udp` or `tcp`.
    pub over: String,
    /// How it went.
    pub rcode: String,
    /// The flags of the answer.
    pub flags: String,
    /// Its answers, a set of records to a text.
    pub answers: Vec<String>,
    /// Its authorities.
    pub authority: Vec<String>,
}

/// What its HTTP ports were asked.
///
/// # Errors
/// If a line is not understood.
pub fn admin() -> Result<Vec<Asked>> {
    crate::lines("istiod/agent/admin.jsonl")
}

/// What its DNS was asked.
///
/// # Errors
/// If a line is not understood.
pub fn dns() -> Result<Vec<Question>> {
    crate::lines("istiod/agent/dns.jsonl")
}
