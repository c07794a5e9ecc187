//! How a control plane is reached, as it is written: addresses, roots of trust, tokens, headers.
//!
//! What may be written is said by `control::grpc`, whose values these are. Only the form is read here: files are opened by
//! whoever uses them, each time anew, since they change.

use std::str::FromStr;

use control::grpc::{Address, ClusterId, Headers, RootsOfTrust, ServerName, Token};

use super::given::Givens;
use super::setting::Kind;

/// A control plane, or none.
pub(super) const ADDRESS: Kind<Option<Address>> = Kind {
    value: "HOST:PORT",
    allowed: "HOST:PORT or https://HOST:PORT, and http://HOST:PORT for plaintext; empty for none",
    parse: optional,
};
/// What a control plane's certificate must chain to.
pub(super) const ROOTS: Kind<RootsOfTrust> = Kind {
    value: "FILE|PEM|SYSTEM",
    allowed: "a PEM file, certificates as inline PEM, or SYSTEM",
    parse: roots,
};
/// A name to be found in a control plane's certificate.
pub(super) const HOSTNAME: Kind<Option<ServerName>> = Kind {
    value: "NAME",
    allowed: "a DNS name or an IP address; empty for that of the address",
    parse: optional,
};
/// How we prove to a control plane who we are.
pub(super) const TOKEN: Kind<Option<Token>> = Kind {
    value: "FILE|TOKEN",
    allowed: "a path with a slash in it, or the token itself in visible ASCII; empty for none",
    parse: token,
};
/// The cluster that we say we are of.
pub(super) const CLUSTER: Kind<ClusterId> =
    Kind { value: "NAME", allowed: "a name of visible ASCII characters", parse: parsed };

fn parsed<T: FromStr<Err: ToString>>(text: &str) -> Result<T, String> {
    text.parse().map_err(|error: T::Err| error.to_string())
}

fn optional<T: FromStr<Err: ToString>>(text: &str) -> Result<Option<T>, String> {
    if text.is_empty() { Ok(None) } else { parsed(text).map(Some) }
}

fn roots(text: &str) -> Result<RootsOfTrust, String> {
    if text.is_empty() {
        Err("without a root of trust nobody could be trusted".to_owned())
    } else {
        parsed(text)
    }
}

fn token(text: &str) -> Result<Option<Token>, String> {
    if is_literal(text) && !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("a token has visible ASCII characters alone".to_owned());
    }
    match optional::<Token>(text)? {
        Some(Token::File(path)) => {
            let path = (super::kinds::PATH.parse)(path.to_str().unwrap_or_default())?;
            Ok(Some(Token::File(path)))
        }
        other => Ok(other),
    }
}

/// Whether it is the token itself, which must not be shown.
pub(super) fn is_literal(text: &str) -> bool {
    matches!(text.parse(), Ok(Token::Literal(token)) if !token.is_empty())
}

/// What is wrong with a header that is to be sent along.
pub(super) fn check_header(name: &str, value: &str) -> Result<(), String> {
    Headers::default().add(name, value).map_err(|error| error.to_string())
}

/// The headers of a family; those that cannot be sent were noted when they were gathered.
pub(super) fn headers(givens: &Givens, family: &str) -> Headers {
    let mut headers = Headers::default();
    for (name, given) in givens.family(family) {
        let _ = headers.add(name, &given.text);
    }
    headers
}
