//! The target of a CONNECT request.

use std::fmt;
use std::net::SocketAddr;
use std::str::FromStr;
use std::sync::Arc;

/// What a tunnel's peer is asked to connect to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Authority {
    /// An address and a port.
    Address(SocketAddr),
    /// The hostname of a service and a port of it.
    Host {
        /// The hostname.
        host: Arc<str>,
        /// The service's port.
        port: u16,
    },
}

/// Text that is no authority.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an authority: it must be IP:PORT or HOST:PORT")]
pub struct AuthorityError(String);

impl Authority {
    /// The port that is asked for.
    pub fn port(&self) -> u16 {
        match self {
            Self::Address(address) => address.port(),
            Self::Host { port, .. } => *port,
        }
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Host { host, port } => write!(f, "{host}:{port}"),
        }
    }
}

impl FromStr for Authority {
    type Err = AuthorityError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return match address.port() {
                0 => Err(AuthorityError(text.to_owned())),
                port => Ok(Self::Address(SocketAddr::new(address.ip().to_canonical(), port))),
            };
        }
        match text.rsplit_once(':').and_then(|(host, port)| Some((host, port_of(port)?))) {
            Some((host, port)) if port != 0 && is_hostname(host) => {
                Ok(Self::Host { host: Arc::from(host.to_ascii_lowercase()), port })
            }
            _ => Err(AuthorityError(text.to_owned())),
        }
    }
}

/// Digits alone (RFC 3986 section 3.2.3): a sign, which numbers may have, is none.
fn port_of(text: &str) -> Option<u16> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok())?
}

/// Letters, digits, hyphens, underscores and dots, at most 253 of them.
fn is_hostname(text: &str) -> bool {
    (1..=253).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_and_prints() {
        for text in ["10.0.0.1:80", "[2001:db8::1]:443", "web.default.svc.cluster.local:8080"] {
            assert_eq!(text.parse::<Authority>().unwrap().to_string(), text);
        }
        assert_eq!("[::ffff:10.0.0.1]:80".parse::<Authority>().unwrap().to_string(), "10.0.0.1:80");
        assert_eq!("WEB.example:80".parse::<Authority>().unwrap().to_string(), "web.example:80");
    }

    #[test]
    fn refuses_what_is_none() {
        for text in [
            "",
            ":80",
            "10.0.0.1",
            "10.0.0.1:0",
            "host:0",
            "host:65536",
            "host:+80",
            "10.0.0.1:+80",
            "host:",
            "user@host:80",
            "ho st:80",
            "2001:db8::1:80",
            "http://host:80",
            "host/path:80",
        ] {
            assert!(text.parse::<Authority>().is_err(), "{text}");
        }
    }
}
