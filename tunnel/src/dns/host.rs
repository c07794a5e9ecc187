//! Names as the mesh knows them: text in lower case, without the final dot.
//!
//! Invariant: each label is made of letters, digits, hyphens and underscores. Names on the wire may hold any byte, a dot
//! within a label too; such a name is none of the mesh's, and must not be taken for one that merely prints alike.

use std::fmt;

use hickory_proto::rr::Name;

/// The longest name (RFC 1035 §2.3.4), as text.
const LONGEST: usize = 253;

/// A name that the mesh may know.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(crate) struct Host(String);

impl Host {
    /// The name of a question; none if the mesh cannot know it.
    pub(crate) fn of(name: &Name) -> Option<Self> {
        let mut text = String::with_capacity(name.len());
        for label in name {
            if !text.is_empty() {
                text.push('.');
            }
            text.push_str(std::str::from_utf8(label).ok().filter(|label| is_plain(label))?);
        }
        text.make_ascii_lowercase();
        (!text.is_empty()).then_some(Self(text))
    }

    /// A name as people write it, with or without the final dot.
    pub(crate) fn parse(text: &str) -> Option<Self> {
        let text = text.strip_suffix('.').unwrap_or(text);
        let good = text.len() <= LONGEST && text.split('.').all(is_plain);
        good.then(|| Self(text.to_ascii_lowercase()))
    }

    /// The name as text.
    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    /// How many dots are in it: what `ndots` is compared with.
    pub(crate) fn dots(&self) -> usize {
        self.0.bytes().filter(|byte| *byte == b'.').count()
    }

    /// The name below a domain; none if that would be too long.
    pub(crate) fn below(&self, domain: &Self) -> Option<Self> {
        (self.0.len() + domain.0.len() < LONGEST).then(|| Self(format!("{}.{}", self.0, domain.0)))
    }

    /// What stands before a domain, if the name is below that.
    pub(crate) fn without(&self, domain: &Self) -> Option<Self> {
        self.0.strip_suffix(&domain.0)?.strip_suffix('.').map(|rest| Self(rest.to_owned()))
    }

    /// The domains that the name is in, the longest first: `b.c` and `c` of `a.b.c`.
    pub(crate) fn domains(&self) -> impl Iterator<Item = &str> {
        std::iter::successors(self.0.split_once('.'), |(_, rest)| rest.split_once('.')).map(|(_, rest)| rest)
    }

    /// The first label and the rest, if there is any.
    pub(crate) fn split_first(&self) -> Option<(&str, Self)> {
        self.0.split_once('.').map(|(first, rest)| (first, Self(rest.to_owned())))
    }

    /// The name for the wire.
    pub(crate) fn name(&self) -> Option<Name> {
        Name::from_labels(self.0.split('.').map(str::as_bytes)).ok()
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

fn is_plain(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_the_wire_are_folded_or_none_of_ours() {
        let labels =
            |labels: &[&str]| Host::of(&Name::from_labels(labels.iter().map(|l| l.as_bytes())).unwrap());
        assert_eq!(labels(&["Web", "Example"]).unwrap().as_str(), "web.example");
        assert_eq!(labels(&["_80", "_tcp", "web"]).unwrap().as_str(), "_80._tcp.web");
        for strange in [&["a.b", "example"][..], &["a b"], &["\u{e9}"], &["*", "example"], &[]] {
            assert_eq!(labels(strange), None, "{strange:?}");
        }
    }

    #[test]
    fn domains_are_put_on_and_taken_off() {
        let host = |text: &str| Host::parse(text).unwrap();
        assert_eq!(host("a.B.c.").domains().collect::<Vec<_>>(), ["b.c", "c"]);
        assert_eq!(host("a").domains().count(), 0);
        assert_eq!(host("a.b").below(&host("c.d")), Some(host("a.b.c.d")));
        assert_eq!(host("a.b.c.d").without(&host("c.d")), Some(host("a.b")));
        assert_eq!(host("a.bc.d").without(&host("c.d")), None);
        assert_eq!(host("c.d").without(&host("c.d")), None);
        let long = host(&["a".repeat(63), "b".repeat(63), "c".repeat(63)].join("."));
        assert_eq!(long.below(&long), None);
        assert_eq!(host("a.b.c").split_first(), Some(("a", host("b.c"))));
        for bad in ["", ".", "a..b", "a b", &"x".repeat(64)] {
            assert_eq!(Host::parse(bad), None, "{bad:?}");
        }
    }
}
