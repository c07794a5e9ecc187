//! How mesh resources name a place: an address on a network, or a hostname in a namespace.
//!
//! Invariant: an address is kept in its canonical form (an IPv4-mapped IPv6 address is the IPv4 address), so
//! that what a dual-stack socket reports compares equal to what the control plane sent.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;

use ipnet::IpNet;

/// An IP address on a named network. The empty name is the default network.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetworkAddress {
    /// The network's name, empty for the default one.
    pub network: Arc<str>,
    /// The address on it.
    pub address: IpAddr,
}

/// An address on a named network, as the question of a look-up: whoever asks has the name already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place<'a> {
    /// The network's name, empty for the default one.
    pub network: &'a str,
    /// The address on it.
    pub address: IpAddr,
}

/// A range of addresses on a named network.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NetworkCidr {
    /// The network's name, empty for the default one.
    pub network: Arc<str>,
    /// The range on it.
    pub cidr: IpNet,
}

/// A hostname as one namespace knows it; names a service.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct NamespacedHostname {
    /// The Kubernetes namespace.
    pub namespace: Arc<str>,
    /// The host's full name.
    pub hostname: Arc<str>,
}

/// Text that does not name a place in the mesh.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Not `network/ip` or `/ip`.
    #[error("`{0}` is not an address on a network: write it as NETWORK/IP, or /IP for the default network")]
    NetworkAddress(String),
    /// Not `network/ip/length` or `/ip/length`.
    #[error("`{0}` is not a range on a network: write it as NETWORK/IP/LENGTH, or /IP/LENGTH")]
    NetworkCidr(String),
    /// Not `namespace/hostname`.
    #[error("`{0}` is not a hostname in a namespace: write it as NAMESPACE/HOSTNAME")]
    NamespacedHostname(String),
}

impl NetworkAddress {
    /// An address on a network, made canonical.
    pub fn new(network: impl Into<Arc<str>>, address: IpAddr) -> Self {
        Self { network: network.into(), address: address.to_canonical() }
    }
}

impl<'a> Place<'a> {
    /// An address on a network, made canonical.
    pub fn new(network: &'a str, address: IpAddr) -> Self {
        Self { network, address: address.to_canonical() }
    }
}

impl<'a> From<&'a NetworkAddress> for Place<'a> {
    fn from(address: &'a NetworkAddress) -> Self {
        Self { network: &address.network, address: address.address }
    }
}

impl From<Place<'_>> for NetworkAddress {
    fn from(place: Place<'_>) -> Self {
        Self { network: place.network.into(), address: place.address }
    }
}

impl NamespacedHostname {
    /// A hostname in a namespace.
    pub fn new(namespace: impl Into<Arc<str>>, hostname: impl Into<Arc<str>>) -> Self {
        Self { namespace: namespace.into(), hostname: hostname.into() }
    }
}

impl fmt::Display for NetworkAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.address)
    }
}

impl fmt::Display for NetworkCidr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.network, self.cidr)
    }
}

impl fmt::Display for NamespacedHostname {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.hostname)
    }
}

impl FromStr for NetworkAddress {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (network, address) =
            text.split_once('/').ok_or_else(|| AddressError::NetworkAddress(text.to_owned()))?;
        let address = address.parse().map_err(|_| AddressError::NetworkAddress(text.to_owned()))?;
        Ok(Self::new(network, address))
    }
}

impl FromStr for NetworkCidr {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let bad = || AddressError::NetworkCidr(text.to_owned());
        let (network, cidr) = text.split_once('/').ok_or_else(bad)?;
        let cidr: IpNet = cidr.parse().map_err(|_| bad())?;
        Ok(Self { network: network.into(), cidr: cidr.trunc() })
    }
}

impl FromStr for NamespacedHostname {
    type Err = AddressError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        match text.split_once('/') {
            Some((namespace, hostname))
                if !namespace.is_empty() && !hostname.is_empty() && !hostname.contains('/') =>
            {
                Ok(Self::new(namespace, hostname))
            }
            _ => Err(AddressError::NamespacedHostname(text.to_owned())),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn network_addresses() {
        for (text, network, address) in [
            ("/10.0.0.1", "", "10.0.0.1"),
            ("east/10.0.0.1", "east", "10.0.0.1"),
            ("/::ffff:10.0.0.1", "", "10.0.0.1"),
            ("/2001:db8::1", "", "2001:db8::1"),
        ] {
            let parsed: NetworkAddress = text.parse().unwrap();
            assert_eq!(parsed, NetworkAddress::new(network, address.parse().unwrap()), "{text}");
            assert_eq!(parsed.to_string().parse(), Ok(parsed));
        }
        for text in ["10.0.0.1", "/", "/10.0.0.256", "a/b/10.0.0.1", ""] {
            assert!(text.parse::<NetworkAddress>().is_err(), "{text}");
        }
    }

    #[test]
    fn network_ranges() {
        let parsed: NetworkCidr = "east/10.1.2.3/8".parse().unwrap();
        assert_eq!(parsed.to_string(), "east/10.0.0.0/8");
        for text in ["/10.0.0.0", "10.0.0.0/8", "/10.0.0.0/33"] {
            assert!(text.parse::<NetworkCidr>().is_err(), "{text}");
        }
    }

    #[test]
    fn namespaced_hostnames() {
        let parsed: NamespacedHostname = "default/web.example".parse().unwrap();
        assert_eq!(parsed, NamespacedHostname::new("default", "web.example"));
        assert_eq!(parsed.to_string(), "default/web.example");
        for text in ["web.example", "/web.example", "default/", "a/b/c", ""] {
            assert!(text.parse::<NamespacedHostname>().is_err(), "{text}");
        }
    }
}
