//! The W3C `traceparent` header: one a connection, to find its log lines on both nodes.

use std::fmt;
use std::str::FromStr;

/// A trace id, a span id, and whether somebody collects the spans of the trace.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Traceparent {
    pub(crate) trace: u128,
    pub(crate) span: u64,
    pub(crate) sampled: bool,
}

/// A header that does not follow W3C Trace Context §3.2.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not a traceparent: expected 00-TRACE-SPAN-FLAGS in lower-case hex")]
pub(crate) struct TraceparentError;

impl Traceparent {
    /// A new, random one, not sampled. Zero ids are invalid by the standard.
    pub(crate) fn random() -> Self {
        Self {
            trace: rand::random_range(1..=u128::MAX),
            span: rand::random_range(1..=u64::MAX),
            sampled: false,
        }
    }
}

impl fmt::Display for Traceparent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{:032x}-{:016x}-{:02x}", self.trace, self.span, u8::from(self.sampled))
    }
}

impl FromStr for Traceparent {
    type Err = TraceparentError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut parts = text.trim().split('-');
        let (Some(version), Some(trace), Some(span), Some(flags)) =
            (parts.next(), parts.next(), parts.next(), parts.next())
        else {
            return Err(TraceparentError);
        };
        let hex = |text: &str, length: usize| {
            text.len() == length && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
        };
        // Later versions may append fields; version 00 may not.
        let well_formed = hex(version, 2)
            && hex(trace, 32)
            && hex(span, 16)
            && hex(flags, 2)
            && version != "ff"
            && (version != "00" || parts.next().is_none());
        let trace = u128::from_str_radix(trace, 16).unwrap_or(0);
        let span = u64::from_str_radix(span, 16).unwrap_or(0);
        // Of the flags the lowest alone means something to us; the others are not passed on.
        let sampled = u8::from_str_radix(flags, 16).unwrap_or(0) & 1 == 1;
        if !well_formed || trace == 0 || span == 0 {
            return Err(TraceparentError);
        }
        Ok(Self { trace, span, sampled })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_and_parses() {
        for (flags, sampled, written) in
            [("00", false, "00"), ("01", true, "01"), ("ff", true, "01"), ("02", false, "00")]
        {
            let text = "00-a921dbcab71f052c4ad10ec836302994-1c57652215e9d6e3-";
            let parsed: Traceparent = format!("{text}{flags}").parse().unwrap();
            assert_eq!((parsed.sampled, parsed.to_string()), (sampled, format!("{text}{written}")));
        }
        let random = Traceparent::random();
        assert_eq!(random.to_string().parse(), Ok(random));
        assert_ne!(random, Traceparent::random());
    }

    #[test]
    fn refuses_what_is_none() {
        for text in [
            "",
            "00-a921dbcab71f052c4ad10ec836302994-1c57652215e9d6e3",
            "00-00000000000000000000000000000000-1c57652215e9d6e3-00",
            "00-a921dbcab71f052c4ad10ec836302994-0000000000000000-00",
            "00-A921DBCAB71F052C4AD10EC836302994-1c57652215e9d6e3-00",
            "ff-a921dbcab71f052c4ad10ec836302994-1c57652215e9d6e3-00",
            "00-a921dbcab71f052c4ad10ec836302994-1c57652215e9d6e3-00-x",
        ] {
            assert!(text.parse::<Traceparent>().is_err(), "{text}");
        }
    }
}
