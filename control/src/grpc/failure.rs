//! What a failure of gRPC is called in logs and errors.

use std::error::Error;

use tonic::{Code, Status};

/// The longest text of a peer that is passed on, in characters.
const LONGEST: usize = 300;

/// An error with all that is behind it, each said once.
pub fn explain(error: &(dyn Error + 'static)) -> String {
    let mut said = error.to_string();
    let mut next = error.source();
    while let Some(cause) = next {
        let text = cause.to_string();
        if !said.contains(&text) {
            said.push_str(": ");
            said.push_str(&text);
        }
        next = cause.source();
    }
    said
}

/// A status in one line: the code by name, the words of the peer, what is behind it, and what to do where that is known.
pub fn status(status: &Status) -> String {
    let mut said = format!("{:?}", status.code());
    let words: String = status.message().chars().filter(|c| !c.is_control()).take(LONGEST).collect();
    let cause = status.source().map(explain).unwrap_or_default();
    // A failure of the connection has its own words as the message, and once more in front of what is behind it.
    let parts = if cause.starts_with(&words) {
        [String::new(), cause]
    } else if words.contains(&cause) {
        [words, String::new()]
    } else {
        [words, cause]
    };
    for part in parts.iter().filter(|part| !part.is_empty()) {
        said.push_str(": ");
        said.push_str(part);
    }
    let advice = match status.code() {
        Code::Unauthenticated => "; check the token, its audience, its account, and the name of the cluster",
        Code::PermissionDenied => "; check that the agent's namespace and account are those of its token",
        Code::InvalidArgument => "; check the agent's own name, namespace and address",
        Code::Unimplemented => "; check that the address is that of a control plane",
        _ => "",
    };
    said.push_str(advice);
    said
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_one_line_with_advice() {
        let said = status(&Status::unauthenticated("authentication\nfailure"));
        assert_eq!(
            said,
            "Unauthenticated: authenticationfailure; check the token, its audience, its account, and the name of the cluster"
        );
        assert!(status(&Status::internal("x".repeat(5000))).len() < 400);
        assert_eq!(status(&Status::new(Code::Unavailable, "")), "Unavailable");
    }

    #[test]
    fn causes_are_told_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("reading the stream")]
        struct Reading(#[source] std::io::Error);

        let inner = std::io::Error::other("the cause");
        let outer = std::io::Error::other(inner);
        assert_eq!(explain(&outer), "the cause");

        let broken = Status::from_error(Box::new(Reading(std::io::Error::other("broken pipe"))));
        assert_eq!(status(&broken), "Unknown: reading the stream: broken pipe");
    }
}
