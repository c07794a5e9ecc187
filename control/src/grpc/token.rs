//! What proves to the control plane who we are.
//!
//! Invariant: a token is never printed, and erased after use. A projected token is replaced on disk before it ends, so a
//! file is read anew for every call.

use std::convert::Infallible;
use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use tonic::metadata::{Ascii, MetadataValue};
use zeroize::Zeroizing;

use super::file::{self, FileError};

/// The largest token, in bytes: what fits into a header of a common server.
const LARGEST: u64 = 48 << 10;

/// Where the token is.
#[derive(Clone, PartialEq, Eq)]
pub enum Token {
    /// In a file, which is replaced from time to time.
    File(PathBuf),
    /// In the configuration itself.
    Literal(Zeroizing<String>),
}

/// Why there is no token.
#[derive(Debug, thiserror::Error)]
pub enum TokenError {
    /// Its file cannot be read.
    #[error("the token: {0}; check that the projected volume `istio-token` is mounted there")]
    Read(#[from] FileError),
    /// There is nothing in it.
    #[error("the token in {place} is empty")]
    Empty {
        /// The file, or `the configuration`.
        place: String,
    },
    /// It cannot be sent.
    #[error("the token in {place} holds something else than visible ASCII characters")]
    Malformed {
        /// The file, or `the configuration`.
        place: String,
    },
}

impl Token {
    /// The value of the header `authorization`, with the token as it is now.
    ///
    /// # Errors
    /// A [`TokenError`] if it cannot be read or is none.
    pub async fn bearer(&self) -> Result<MetadataValue<Ascii>, TokenError> {
        let (token, place) = match self {
            Self::Literal(token) => {
                (Zeroizing::new(token.as_bytes().to_vec()), "the configuration".to_owned())
            }
            Self::File(path) => {
                (Zeroizing::new(file::read(path, LARGEST).await?), path.display().to_string())
            }
        };
        let token = token.trim_ascii();
        if token.is_empty() {
            return Err(TokenError::Empty { place });
        }
        if !token.iter().all(u8::is_ascii_graphic) {
            return Err(TokenError::Malformed { place });
        }
        let header = Zeroizing::new([b"Bearer ".as_slice(), token].concat());
        let mut value =
            MetadataValue::try_from(header.as_slice()).map_err(|_| TokenError::Malformed { place })?;
        value.set_sensitive(true);
        Ok(value)
    }
}

/// Text with a slash is a path, for no token has one (RFC 7519 section 3); all else is the token itself.
impl FromStr for Token {
    type Err = Infallible;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        Ok(if text.contains('/') {
            Self::File(text.into())
        } else {
            Self::Literal(Zeroizing::new(text.to_owned()))
        })
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => f.debug_tuple("File").field(path).finish(),
            Self::Literal(_) => f.write_str("Literal(..)"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_file_is_read_anew_and_its_faults_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("istio-token");
        let token: Token = path.to_str().unwrap().parse().unwrap();
        let error = token.bearer().await.unwrap_err().to_string();
        assert!(error.contains("istio-token") && error.contains("projected volume"), "{error}");
        for (content, expected) in [
            ("", "is empty"),
            (" \n", "is empty"),
            ("a b", "visible ASCII"),
            ("a\u{0}", "visible ASCII"),
            ("é", "visible ASCII"),
        ] {
            std::fs::write(&path, content).unwrap();
            let error = token.bearer().await.unwrap_err().to_string();
            assert!(error.contains("istio-token") && error.contains(expected), "{content:?}: {error}");
            assert!(content.trim().is_empty() || !error.contains(content), "{error}");
        }
        for content in ["first", "second\n"] {
            std::fs::write(&path, content).unwrap();
            let value = token.bearer().await.unwrap();
            assert_eq!(value.to_str().unwrap(), format!("Bearer {}", content.trim()));
            assert!(!format!("{value:?}").contains(content.trim()), "not printed");
        }
        std::fs::write(&path, "x".repeat(49 << 10)).unwrap();
        assert!(token.bearer().await.unwrap_err().to_string().contains("larger than"));
    }

    #[tokio::test]
    async fn a_literal_is_not_printed() {
        let token: Token = "head.body.signature".parse().unwrap();
        assert_eq!(format!("{token:?}"), "Literal(..)");
        assert_eq!(token.bearer().await.unwrap().to_str().unwrap(), "Bearer head.body.signature");
    }
}
