//! Where the admin interface listens: on this host's loopback and nowhere else.
//!
//! Invariant: an address that another host could reach is not taken.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

/// `localhost:PORT`, which is both loopback addresses, or one loopback address and a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum AdminAddress {
    /// Both families.
    Localhost(u16),
    /// One address.
    Loopback(SocketAddr),
}

impl AdminAddress {
    /// The addresses to listen on.
    pub(crate) fn addresses(self) -> Vec<SocketAddr> {
        match self {
            Self::Localhost(port) => vec![
                SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port),
                SocketAddr::new(IpAddr::V6(Ipv6Addr::LOCALHOST), port),
            ],
            Self::Loopback(address) => vec![address],
        }
    }
}

impl FromStr for AdminAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        if let Some(port) = text.strip_prefix("localhost:").and_then(|port| port.parse().ok()) {
            return Ok(Self::Localhost(port));
        }
        match text.parse::<SocketAddr>() {
            Ok(address) if address.ip().to_canonical().is_loopback() => Ok(Self::Loopback(address)),
            Ok(address) => Err(format!(
                "{address} may be reached from other hosts, and the admin interface asks nobody who he is"
            )),
            Err(_) => Err("no loopback address with a port".to_owned()),
        }
    }
}

impl fmt::Display for AdminAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Localhost(port) => write!(f, "localhost:{port}"),
            Self::Loopback(address) => address.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_taken() {
        for (text, count) in
            [("localhost:15000", 2), ("127.0.0.1:15000", 1), ("127.9.9.9:1", 1), ("[::1]:15000", 1)]
        {
            let address: AdminAddress = text.parse().unwrap();
            assert_eq!((address.addresses().len(), address.to_string().as_str()), (count, text));
            assert!(address.addresses().iter().all(|address| address.ip().is_loopback()));
        }
        for text in ["0.0.0.0:15000", "[::]:15000", "10.0.0.1:15000", "[fd00::1]:1"] {
            assert!(text.parse::<AdminAddress>().unwrap_err().contains("from other hosts"), "{text}");
        }
        for text in ["", "localhost", "localhost:70000", "15000", "example.com:15000"] {
            assert!(text.parse::<AdminAddress>().unwrap_err().starts_with("no loopback address"), "{text}");
        }
    }
}
