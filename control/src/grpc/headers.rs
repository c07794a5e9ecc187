//! Headers that the user has added to every call.
//!
//! Invariant: they can be sent, and none stands for what the client itself has to say.

use tonic::metadata::{Ascii, AsciiMetadataKey, MetadataValue};

/// What is the client's to say.
const OURS: [&str; 6] = ["authorization", "clusterid", "content-type", "te", "user-agent", "host"];

/// What of that is so towards anybody.
const TRANSPORTS: [&str; 4] = ["content-type", "te", "user-agent", "host"];

/// A header that cannot be sent. Its value is not told: it may be a secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The name is none.
    #[error("`{0}` is not the name of a header: write letters, digits, `-`, `_` and `.`")]
    Name(String),
    /// The name is taken.
    #[error("the header `{0}` is set by the agent itself: leave it out")]
    Ours(String),
    /// The value cannot be sent.
    #[error("the value of the header `{0}` cannot be sent: write visible ASCII characters and spaces")]
    Value(String),
}

/// Headers of the user, in the order they were added.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Headers(Vec<(AsciiMetadataKey, MetadataValue<Ascii>)>);

impl Headers {
    /// Adds a header.
    ///
    /// # Errors
    /// A [`HeaderError`] if it cannot be sent.
    pub fn add(&mut self, name: &str, value: &str) -> Result<(), HeaderError> {
        self.add_unless(&OURS, name, value)
    }

    /// Adds a header for an endpoint that is told neither our token nor our cluster: how we are let in there, the user says.
    ///
    /// # Errors
    /// A [`HeaderError`] if it cannot be sent.
    pub fn add_for_stranger(&mut self, name: &str, value: &str) -> Result<(), HeaderError> {
        self.add_unless(&TRANSPORTS, name, value)
    }

    fn add_unless(&mut self, taken: &[&str], name: &str, value: &str) -> Result<(), HeaderError> {
        let lower = name.to_ascii_lowercase();
        if taken.contains(&lower.as_str()) || lower.starts_with("grpc-") {
            return Err(HeaderError::Ours(lower));
        }
        let key = lower.parse().map_err(|_| HeaderError::Name(name.to_owned()))?;
        let value = Some(value).filter(|value| value.bytes().all(|byte| matches!(byte, b' '..=b'~')));
        let mut value: MetadataValue<Ascii> =
            value.and_then(|value| value.parse().ok()).ok_or(HeaderError::Value(lower))?;
        value.set_sensitive(true);
        self.0.push((key, value));
        Ok(())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &(AsciiMetadataKey, MetadataValue<Ascii>)> {
        self.0.iter()
    }
}

impl std::fmt::Debug for Headers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_list().entries(self.0.iter().map(|(name, _)| name.as_str())).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn headers_are_checked_when_they_are_added() {
        let mut headers = Headers::default();
        headers.add("X-Tenant", "one two").unwrap();
        assert_eq!(format!("{headers:?}"), "[\"x-tenant\"]", "values are not printed");
        for (name, value, error) in [
            ("", "x", HeaderError::Name(String::new())),
            ("a b", "x", HeaderError::Name("a b".to_owned())),
            ("data-bin", "x", HeaderError::Name("data-bin".to_owned())),
            ("x", "a\nb", HeaderError::Value("x".to_owned())),
            ("x", "é", HeaderError::Value("x".to_owned())),
            ("Authorization", "x", HeaderError::Ours("authorization".to_owned())),
            ("grpc-timeout", "1S", HeaderError::Ours("grpc-timeout".to_owned())),
        ] {
            assert_eq!(headers.add(name, value), Err(error), "{name}: {value}");
        }
        assert_eq!(headers.iter().count(), 1);
        headers.add_for_stranger("Authorization", "Bearer x").unwrap();
        assert_eq!(headers.add_for_stranger("TE", "x"), Err(HeaderError::Ours("te".to_owned())));
        assert_eq!(headers.iter().count(), 2);
    }
}
