//! A recorded conversation that is played again: what a server sent, byte for byte, as far as a test lets it out.
//!
//! Invariants: a stream gets the responses in their recorded order, from the first one on; none beyond the count, and none of
//! a type that its client has not asked for, which holds back those behind it. Nonces are the recorded ones, so a client that
//! answers with its own is seen. What clients ask is recorded, and changes nothing of what comes.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use bytes::Bytes;
use prost::Message as _;
use serde::Deserialize;

use crate::wire::discovery::Response;

/// The responses of a recording.
#[derive(Clone, Debug)]
pub struct Recording(Arc<[Recorded]>);

/// One response as it was on the wire.
#[derive(Clone, Debug)]
pub(crate) struct Recorded {
    pub(crate) type_url: String,
    pub(crate) nonce: String,
    pub(crate) message: Bytes,
}

/// A line of a recording, as far as it matters here.
#[derive(Deserialize)]
struct Line {
    /// What the server sent, in readable form.
    received: Option<serde::de::IgnoredAny>,
    /// The bytes of a message, in base64.
    raw: Option<String>,
}

impl Recording {
    /// Of the lines of JSON that were written when it was recorded: those with `received` have the bytes in `raw`.
    ///
    /// # Errors
    /// Names the line that is not of that form, and says so if there is none with a response.
    pub fn parse(text: &str) -> Result<Self> {
        let mut responses = Vec::new();
        for (index, line) in text.lines().enumerate() {
            let recorded = recorded(line).with_context(|| format!("understand line {}", index + 1))?;
            responses.extend(recorded);
        }
        ensure!(!responses.is_empty(), "no line with a response");
        Ok(Self(responses.into()))
    }

    /// The same, of a file.
    ///
    /// # Errors
    /// If it cannot be read or understood.
    pub fn read(path: &Path) -> Result<Self> {
        let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
        Self::parse(&text).with_context(|| format!("understand {}", path.display()))
    }

    /// How many responses it has.
    pub fn count(&self) -> usize {
        self.0.len()
    }
}

fn recorded(line: &str) -> Result<Option<Recorded>> {
    let line: Line = serde_json::from_str(line)?;
    if line.received.is_none() {
        return Ok(None);
    }
    let raw = line.raw.context("a response without its bytes")?;
    let message = Bytes::from(STANDARD.decode(raw).context("read base64")?);
    let Response { type_url, nonce, .. } = Response::decode(message.clone()).context("decode a response")?;
    Ok(Some(Recorded { type_url, nonce, message }))
}

/// How far a recording has been played on a stream.
#[derive(Debug)]
pub(crate) struct Playing {
    recording: Recording,
    sent: usize,
    asked: BTreeSet<String>,
}

impl Playing {
    pub(crate) fn new(recording: Recording) -> Self {
        Self { recording, sent: 0, asked: BTreeSet::new() }
    }

    /// The client has asked for a type.
    pub(crate) fn asked(&mut self, type_url: &str) {
        if !self.asked.contains(type_url) {
            self.asked.insert(type_url.to_owned());
        }
    }

    /// What is to be sent now, if `until` responses may be out.
    pub(crate) fn due(&mut self, until: usize) -> Vec<Recorded> {
        let next = self.recording.0.get(self.sent..until.min(self.recording.count())).unwrap_or_default();
        let due: Vec<_> =
            next.iter().take_while(|recorded| self.asked.contains(&recorded.type_url)).cloned().collect();
        self.sent += due.len();
        due
    }
}

#[cfg(test)]
mod tests {
    use crate::wire::discovery::{ADDRESS, AUTHORIZATION};

    use super::*;

    fn line(type_url: &str, nonce: &str) -> String {
        let response =
            Response { type_url: type_url.to_owned(), nonce: nonce.to_owned(), ..Response::default() };
        serde_json::json!({ "ms": 1, "received": {}, "raw": STANDARD.encode(response.encode_to_vec()) })
            .to_string()
    }

    #[test]
    fn responses_come_in_their_order_up_to_the_count_and_only_what_was_asked_for() {
        let text = [
            r#"{"ms": 0, "about": "nothing"}"#,
            &line(ADDRESS, "1"),
            r#"{"ms": 1, "sent": {}, "raw": "AAAA"}"#,
            &line(AUTHORIZATION, "2"),
            &line(ADDRESS, "3"),
        ]
        .join("\n");
        let mut playing = Playing::new(Recording::parse(&text).unwrap());
        let mut nonces = |asked: &str, until| {
            playing.asked(asked);
            playing.due(until).into_iter().map(|recorded| recorded.nonce).collect::<Vec<_>>()
        };
        assert!(nonces(AUTHORIZATION, 1).is_empty(), "the one before was not asked for");
        assert_eq!(nonces(ADDRESS, 2), ["1", "2"]);
        assert!(nonces(ADDRESS, 2).is_empty());
        assert_eq!(nonces(ADDRESS, 9), ["3"]);
        assert!(nonces(ADDRESS, 9).is_empty());
    }

    #[test]
    fn a_line_that_is_not_understood_is_named() {
        for (text, what) in [
            ("{", "line 1"),
            ("{}\n{\"received\": {}, \"raw\": \"!\"}", "line 2"),
            ("{\"received\": {}}", "without its bytes"),
            ("{\"received\": {}, \"raw\": \"////\"}", "decode a response"),
            ("{}", "no line with a response"),
        ] {
            let error = format!("{:#}", Recording::parse(text).unwrap_err());
            assert!(error.contains(what), "{text}: {error}");
        }
    }
}
