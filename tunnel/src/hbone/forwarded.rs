//! The `forwarded` header (RFC 7239) as HBONE uses it: who the client is, and which host it addressed.

use std::fmt;
use std::net::SocketAddr;

/// One element of the header.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Forwarded {
    /// The client's address and port.
    pub(crate) client: Option<SocketAddr>,
    /// The hostname of the service the client addressed.
    pub(crate) host: Option<String>,
}

impl Forwarded {
    /// Reads the first element; what cannot be understood is left out, since nothing is decided by it.
    pub(crate) fn parse(header: &str) -> Self {
        let mut forwarded = Self::default();
        let element = header.split(',').next().unwrap_or_default();
        for (name, value) in element.split(';').filter_map(|pair| pair.split_once('=')) {
            let value = value.trim().trim_matches('"');
            match name.trim().to_ascii_lowercase().as_str() {
                "for" => forwarded.client = value.parse().ok(),
                "host" if !value.is_empty() => forwarded.host = Some(value.to_owned()),
                _ => {}
            }
        }
        forwarded
    }
}

impl fmt::Display for Forwarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(client) = self.client {
            write!(f, "for=\"{client}\"")?;
        }
        match (&self.host, self.client) {
            (Some(host), Some(_)) => write!(f, ";host={host}"),
            (Some(host), None) => write!(f, "host={host}"),
            (None, _) => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prints_and_parses_what_the_peer_sends() {
        for text in [
            r#"for="10.98.1.11:13274""#,
            r#"for="10.98.1.11:64234";host=svcb.default.svc.cluster.local"#,
            r#"for="[fd00:1::30]:1024""#,
        ] {
            let forwarded = Forwarded::parse(text);
            assert!(forwarded.client.is_some(), "{text}");
            assert_eq!(forwarded.to_string(), text);
        }
    }

    #[test]
    fn leaves_out_what_it_cannot_read() {
        for text in ["", "for", "for=unknown", ";;=;", "by=10.0.0.1"] {
            assert_eq!(Forwarded::parse(text), Forwarded::default(), "{text}");
        }
        let proxied = Forwarded::parse("For=\"10.0.0.1:1\"; Host=a, for=\"10.0.0.2:2\"");
        assert_eq!((proxied.client, proxied.host.as_deref()), ("10.0.0.1:1".parse().ok(), Some("a")));
    }
}
