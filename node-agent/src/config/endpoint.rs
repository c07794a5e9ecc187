//! How a control plane is reached, as it is written: addresses, roots of trust, tokens, headers.
//!
//! Only the form is read here. Files are opened by whoever uses them, each time anew, since they change.

use std::fmt;
use std::net::{IpAddr, Ipv6Addr};
use std::path::PathBuf;

use super::kinds::DOMAIN;
use super::setting::Kind;

/// A control plane, or none.
pub(super) const ADDRESS: Kind<Option<Address>> = Kind {
    value: "HOST:PORT",
    allowed: "HOST:PORT or https://HOST:PORT, and http://HOST:PORT for plaintext; empty for none",
    parse: address,
};
/// What a control plane's certificate must chain to.
pub(super) const ROOT: Kind<RootOfTrust> = Kind {
    value: "FILE|PEM|SYSTEM",
    allowed: "a PEM file, certificates as inline PEM, or SYSTEM",
    parse: root,
};
/// A name to be found in a control plane's certificate.
pub(super) const HOSTNAME: Kind<Option<String>> =
    Kind { value: "NAME", allowed: "a DNS name; empty for that of the address", parse: hostname };
/// How we prove to a control plane who we are.
pub(super) const TOKEN: Kind<Option<Token>> = Kind {
    value: "FILE|TOKEN",
    allowed: "a path with a slash in it, or the token itself in printable ASCII; empty for none",
    parse: token,
};

/// Where a control plane listens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Address {
    /// Without TLS, because it was written so.
    pub(crate) plaintext: bool,
    /// A DNS name or an IP address, without brackets.
    pub(crate) host: String,
    /// Its port.
    pub(crate) port: u16,
}

/// The root of trust for a control plane.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum RootOfTrust {
    /// A PEM file, which may be replaced.
    File(PathBuf),
    /// PEM in place.
    Inline(String),
    /// What the system trusts.
    System,
}

/// The token that proves who we are.
#[derive(Clone, PartialEq, Eq)]
pub(crate) enum Token {
    /// A file, to be read for each use.
    File(PathBuf),
    /// The token itself.
    Literal(String),
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.plaintext { "http" } else { "https" };
        match self.host.parse::<Ipv6Addr>() {
            Ok(host) => write!(f, "{scheme}://[{host}]:{}", self.port),
            Err(_) => write!(f, "{scheme}://{}:{}", self.host, self.port),
        }
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::File(path) => write!(f, "File({})", path.display()),
            Self::Literal(_) => f.write_str("Literal(secret)"),
        }
    }
}

fn address(text: &str) -> Result<Option<Address>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    let (plaintext, rest) = match text.split_once("://") {
        Some(("https", rest)) => (false, rest),
        Some(("http", rest)) => (true, rest),
        Some((scheme, _)) => return Err(format!("{scheme}:// is spoken by no control plane")),
        None => (false, text),
    };
    let rest = rest.strip_suffix('/').unwrap_or(rest);
    let (host, port) = rest.rsplit_once(':').ok_or("the port is missing")?;
    let port = match port.parse() {
        Ok(0) | Err(_) => return Err(format!("{port:?} is no port")),
        Ok(port) => port,
    };
    let host = match host.strip_prefix('[').and_then(|host| host.strip_suffix(']')) {
        Some(v6) => v6.parse::<Ipv6Addr>().map_err(|_| format!("{v6:?} is no IPv6 address"))?.to_string(),
        None if host.parse::<Ipv6Addr>().is_ok() => {
            return Err("an IPv6 address with a port is written in brackets".to_owned());
        }
        None => (DOMAIN.parse)(host.strip_suffix('.').unwrap_or(host))
            .map_err(|_| format!("{host:?} is no name of a host"))?,
    };
    Ok(Some(Address { plaintext, host, port }))
}

fn root(text: &str) -> Result<RootOfTrust, String> {
    match text {
        "" => Err("without a root of trust nobody could be trusted".to_owned()),
        "SYSTEM" => Ok(RootOfTrust::System),
        pem if pem.contains("-----BEGIN CERTIFICATE-----") => Ok(RootOfTrust::Inline(pem.to_owned())),
        pem if pem.contains("-----BEGIN") => Err("PEM without a certificate in it".to_owned()),
        path => (super::kinds::PATH.parse)(path).map(RootOfTrust::File),
    }
}

fn hostname(text: &str) -> Result<Option<String>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    match text.parse::<IpAddr>() {
        Ok(address) => Ok(Some(address.to_string())),
        Err(_) => (DOMAIN.parse)(text).map(Some),
    }
}

fn token(text: &str) -> Result<Option<Token>, String> {
    match text {
        "" => Ok(None),
        text if !is_literal(text) => (super::kinds::PATH.parse)(text).map(|path| Some(Token::File(path))),
        text if text.chars().all(|c| c.is_ascii_graphic()) => Ok(Some(Token::Literal(text.to_owned()))),
        _ => Err("a token has no blanks and nothing but ASCII in it".to_owned()),
    }
}

/// Whether it is the token itself, which must not be shown. Tokens are written in an alphabet without slashes.
pub(super) fn is_literal(text: &str) -> bool {
    !text.is_empty() && !text.contains('/')
}

/// What is wrong with a header that is to be sent along.
pub(super) fn check_header(name: &str, value: &str) -> Result<(), String> {
    /// What the protocol itself sends, or we do.
    const OURS: [&str; 7] =
        ["authorization", "clusterid", "content-type", "te", "host", "connection", "transfer-encoding"];
    let is_token = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let lower = name.to_ascii_lowercase();
    if name.is_empty() || !name.chars().all(is_token) {
        return Err("no name of a header".to_owned());
    }
    if OURS.contains(&lower.as_str()) || lower.starts_with("grpc-") {
        return Err(format!("{lower} is set by the agent itself"));
    }
    if lower.ends_with("-bin") {
        return Err("binary headers (-bin) are not supported".to_owned());
    }
    if !value.chars().all(|c| c.is_ascii_graphic() || c == ' ') {
        return Err("a header has nothing but printable ASCII in it".to_owned());
    }
    Ok(())
}
