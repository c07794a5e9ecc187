//! The address of an endpoint.
//!
//! Invariant: an address that parsed has a host and a port, and nothing besides. It is TLS unless it is written as
//! `http://`.

use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;

use tonic::transport::Uri;

/// Where an endpoint is: `host:port`, or a URL of scheme `https` or `http` (plaintext).
#[derive(Clone, PartialEq, Eq)]
pub struct Address {
    uri: Uri,
    plaintext: bool,
}

/// Text that is no address of an endpoint.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{text}` is not an address of a gRPC server: {reason}; write HOST:PORT, or http://HOST:PORT for plaintext"
)]
pub struct AddressError {
    text: String,
    reason: &'static str,
}

impl Address {
    /// Whether it is spoken to without TLS.
    pub fn is_plaintext(&self) -> bool {
        self.plaintext
    }

    pub(super) fn uri(&self) -> &Uri {
        &self.uri
    }
}

impl FromStr for Address {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let wrong = |reason| AddressError { text: text.to_owned(), reason };
        let with_scheme = if text.contains("://") { text.to_owned() } else { format!("https://{text}") };
        let uri: Uri = with_scheme.parse().map_err(|_| wrong("it cannot be read"))?;
        let plaintext = match uri.scheme_str() {
            Some("https") => false,
            Some("http") => true,
            _ => return Err(wrong("its scheme is neither https nor http")),
        };
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(wrong("it names a user"));
        }
        if !matches!(uri.path_and_query().map(|path| path.as_str()), None | Some("/" | "")) {
            return Err(wrong("it has a path"));
        }
        let host = uri.host().unwrap_or_default();
        if let Some(v6) = host.strip_prefix('[')
            && v6.strip_suffix(']').is_none_or(|v6| v6.parse::<Ipv6Addr>().is_err())
        {
            return Err(wrong("what is in brackets is no IPv6 address"));
        }
        match (uri.host(), uri.port_u16()) {
            (None | Some(""), _) => Err(wrong("it has no host")),
            (_, None) => Err(wrong("it has no port from 1 to 65535")),
            (_, Some(0)) => Err(wrong("its port is 0")),
            _ => Ok(Self { uri, plaintext }),
        }
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let scheme = if self.plaintext { "http://" } else { "" };
        let place = self.uri.authority().map(|authority| authority.as_str()).unwrap_or_default();
        write!(f, "{scheme}{place}")
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses() {
        for (text, printed, plaintext) in [
            ("istiod.istio-system.svc:15012", "istiod.istio-system.svc:15012", false),
            ("https://istiod:15012", "istiod:15012", false),
            ("https://istiod:15012/", "istiod:15012", false),
            ("http://127.0.0.1:15010", "http://127.0.0.1:15010", true),
            ("[fd00::1]:15012", "[fd00::1]:15012", false),
            ("http://[::1]:15010", "http://[::1]:15010", true),
        ] {
            let address: Address = text.parse().unwrap();
            assert_eq!((address.to_string().as_str(), address.is_plaintext()), (printed, plaintext));
            assert_eq!(address.to_string().parse(), Ok(address), "{text}");
        }
    }

    #[test]
    fn what_is_no_address_says_why() {
        for (text, reason) in [
            ("", "cannot be read"),
            ("istiod", "no port"),
            ("istiod:", "no port"),
            ("istiod:0", "port is 0"),
            ("istiod:65536", "cannot be read"),
            ("istiod:15012/ads", "has a path"),
            ("istiod:15012?x=y", "has a path"),
            ("me@istiod:15012", "names a user"),
            ("ftp://istiod:21", "neither https nor http"),
            ("unix:///run/x.sock", "cannot be read"),
            ("fd00::1:15012", "cannot be read"),
            ("[istiod]:15012", "no IPv6 address"),
            ("a b:15012", "cannot be read"),
        ] {
            let error = text.parse::<Address>().unwrap_err().to_string();
            assert!(error.contains(&format!("`{text}`")) && error.contains("HOST:PORT"), "{error}");
            assert!(error.contains(reason) || reason == "cannot be read", "{text}: {error}");
        }
    }
}
