//! Answers of the certificate authority.

use control::fuzzing::{self, CaOutcome};

/// An answer is taken with a chain for peers without a root in it, and with roots; or refused in words.
///
/// # Panics
/// When something does not hold.
pub fn ca_response(data: &[u8]) {
    match fuzzing::ca_response(data) {
        None => {}
        Some(CaOutcome::Refused(reason)) => {
            assert!(!reason.is_empty() && reason.len() < 4096, "{reason}");
        }
        Some(CaOutcome::Taken { chain, roots }) => {
            assert!(!chain.is_empty() && !roots.is_empty());
            assert!(chain.iter().skip(1).all(|other| !roots.contains(other)), "peers are sent no root");
            // What is taken is no more than what was sent.
            assert!(chain.iter().chain(&roots).map(Vec::len).sum::<usize>() < data.len());
        }
    }
}
