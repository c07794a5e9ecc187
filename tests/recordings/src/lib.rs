//! Recordings of a real control plane and of the peer, as they lie in `data`, packed; what they are says `data/README.md`.
//!
//! They are read where they were compiled from. A line that is not of the form that it should be is an error that names it.

#![forbid(unsafe_code)]

pub mod agent;
pub mod certificates;
mod conversation;
pub mod parity;
pub mod zds;

use std::io::Read as _;
use std::path::Path;

use anyhow::{Context as _, Result};
use flate2::read::GzDecoder;
use serde::de::DeserializeOwned;

pub use self::conversation::{Closed, Line, conversation};

/// The text of a recording, by its path below `data` without the `.gz`.
pub fn text(name: &str) -> Result<String> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(format!("{name}.gz"));
    let packed = std::fs::File::open(&path).with_context(|| format!("open {}", path.display()))?;
    let mut text = String::new();
    GzDecoder::new(packed).read_to_string(&mut text).with_context(|| format!("unpack {}", path.display()))?;
    Ok(text)
}

/// The lines of a recording, each an object.
pub fn lines<T: DeserializeOwned>(name: &str) -> Result<Vec<T>> {
    let text = text(name)?;
    let line = |(number, line)| {
        serde_json::from_str(line).with_context(|| format!("understand line {} of {name}", number + 1))
    };
    text.lines().enumerate().map(line).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(below: &str) -> Vec<String> {
        let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("data").join(below);
        let name =
            |entry: std::io::Result<std::fs::DirEntry>| entry.unwrap().file_name().into_string().unwrap();
        let packed = |name: String| name.strip_suffix(".gz").map(|name| format!("{below}/{name}"));
        std::fs::read_dir(dir).unwrap().map(name).filter_map(packed).collect()
    }

    #[test]
    fn every_conversation_is_read_and_its_messages_have_bytes() {
        let of_calls = ["istiod/certificates.jsonl", "istiod/plugged_in_ca.jsonl"];
        let conversations: Vec<_> =
            names("istiod").into_iter().filter(|name| !of_calls.contains(&name.as_str())).collect();
        assert_eq!(conversations.len(), 12, "{conversations:?}");
        for name in conversations {
            let said = conversation(name.strip_suffix(".jsonl").unwrap()).unwrap();
            for line in &said {
                let message = line.sent.is_some() || line.received.is_some();
                assert_eq!(message, !line.raw.is_empty(), "{name}: {line:?}");
            }
        }
    }

    #[test]
    fn every_other_file_is_read() {
        let calls = |name| certificates::calls(name).unwrap();
        let signed =
            |calls: Vec<certificates::Call>| calls.iter().filter(|call| call.response.is_some()).count();
        assert_eq!((calls("istiod/certificates").len(), calls("istiod/plugged_in_ca").len()), (11, 2));
        assert_eq!((signed(calls("istiod/certificates")), signed(calls("istiod/plugged_in_ca"))), (4, 2));
        assert_eq!((agent::admin().unwrap().len(), agent::dns().unwrap().len()), (20, 46));
        assert_eq!(zds::conversation().unwrap().len(), 19);
        for name in names("istiod/agent") {
            assert!(text(&name).unwrap().len() > 1000, "{name}");
        }
    }

    #[test]
    fn the_tables_are_whole() {
        let counts = [parity::routing(), parity::policy(), parity::live()].map(|rows| rows.unwrap().len());
        assert_eq!(counts, [43, 170, 8]);
    }
}
