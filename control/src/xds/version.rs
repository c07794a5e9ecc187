//! Versions of resources, as the control plane wrote them.
//!
//! Invariant: a version prints as it came, to the byte. There is one for each resource of the mesh, so the common form (up
//! to 16 hexadecimal digits without leading zeros) is kept as a number.

use std::fmt;

/// A version.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Version {
    Number(u64),
    Text(Box<str>),
}

impl From<&str> for Version {
    fn from(text: &str) -> Self {
        match u64::from_str_radix(text, 16) {
            Ok(number) if format!("{number:x}") == text => Self::Number(number),
            _ => Self::Text(text.into()),
        }
    }
}

impl fmt::Display for Version {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Number(number) => write!(f, "{number:x}"),
            Self::Text(text) => f.write_str(text),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_as_it_came() {
        let texts = [
            "",
            "0",
            "00",
            "x",
            "5cc91f3c05840c4e",
            "9d1a394cd8760a9",
            "05CC",
            "5CC",
            "+1",
            "5cc91f3c05840c4e0",
        ];
        for text in texts {
            assert_eq!(Version::from(text).to_string(), text);
        }
        assert_eq!(Version::from("9d1a394cd8760a9"), Version::Number(0x9d1_a394_cd87_60a9));
    }
}
