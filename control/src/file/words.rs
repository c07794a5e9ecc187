//! How single values are written in a mesh file.
//!
//! Invariant: a value that does not mean anything is an error where it stands, never a default.

use std::fmt;
use std::marker::PhantomData;
use std::net::IpAddr;
use std::str::FromStr;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use mesh::NamespacedHostname;
use mesh::NetworkAddress;
use mesh::service::{HealthPolicy, IpFamilies, LoadBalancerMode, Scope, Visibility};
use mesh::workload::{GatewayDestination, Health, NetworkMode, Protocol, TunnelProtocol, WorkloadType};
use mesh::{Identity, policy};
use serde::de::{Deserialize, Deserializer, Error, Visitor};

use super::texts;

/// A value that is written as one word.
pub(super) trait Word: Sized {
    /// What is expected, for error messages.
    const EXPECTED: &'static str;
    /// Whether it is a number, which formats that tell numbers from text have as such.
    const IS_NUMBER: bool = false;

    fn read(text: &str) -> Option<Self>;
}

/// A [`Word`] as serde sees it. Quoted or not, number or string, it is the text that counts.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct As<T>(pub(super) T);

impl<'de, T: Word> Deserialize<'de> for As<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let visitor = WordVisitor(PhantomData);
        if T::IS_NUMBER {
            deserializer.deserialize_any(visitor)
        } else {
            deserializer.deserialize_str(visitor)
        }
    }
}

impl<T: Word + Default> Default for As<T> {
    fn default() -> Self {
        Self(T::default())
    }
}

struct WordVisitor<T>(PhantomData<T>);

impl<T: Word> Visitor<'_> for WordVisitor<T> {
    type Value = As<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(T::EXPECTED)
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Self::Value, E> {
        T::read(text).map(As).ok_or_else(|| E::custom(format!("`{text}` is not {}", T::EXPECTED)))
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Self::Value, E> {
        self.visit_str(&number.to_string())
    }
}

/// A port from 1 to 65535.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Port(pub(super) u16);

impl Word for Port {
    const EXPECTED: &'static str = "a port from 1 to 65535";
    const IS_NUMBER: bool = true;

    fn read(text: &str) -> Option<Self> {
        text.parse().ok().filter(|port| *port != 0).map(Self)
    }
}

/// A port, or 0 where each endpoint has its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct TargetPort(pub(super) u16);

impl Word for TargetPort {
    const EXPECTED: &'static str = "a target port from 0 to 65535";
    const IS_NUMBER: bool = true;

    fn read(text: &str) -> Option<Self> {
        text.parse().ok().map(Self)
    }
}

/// Any text, also none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Text(pub(super) Arc<str>);

impl Word for Text {
    const EXPECTED: &'static str = "a text";

    fn read(text: &str) -> Option<Self> {
        Some(Self(texts::text(text)))
    }
}

/// A name that may be part of an identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Name(pub(super) Arc<str>);

impl Word for Name {
    const EXPECTED: &'static str = "a name: it must not be empty nor contain a slash or white space";

    fn read(text: &str) -> Option<Self> {
        let fits = !text.is_empty() && !text.contains(|c: char| c == '/' || c.is_whitespace());
        fits.then(|| Self(texts::text(text)))
    }
}

/// An identity that a peer may show, in the form that workloads have theirs; no other SPIFFE name is taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct SubjectAltName(pub(super) Arc<str>);

impl Word for SubjectAltName {
    const EXPECTED: &'static str = "an identity such as spiffe://TRUST-DOMAIN/ns/NAMESPACE/sa/ACCOUNT";

    fn read(text: &str) -> Option<Self> {
        Identity::from_str(text).ok().map(|_| Self(texts::text(text)))
    }
}

/// A range of addresses; a single address is a range of one.
impl Word for IpNet {
    const EXPECTED: &'static str = "an IP address or a range such as 10.0.0.0/8";

    fn read(text: &str) -> Option<Self> {
        text.parse().ok().or_else(|| text.parse().ok().map(|address: IpAddr| address.into()))
    }
}

impl Word for IpAddr {
    const EXPECTED: &'static str = "an IP address";

    fn read(text: &str) -> Option<Self> {
        text.parse().ok().map(|address: IpAddr| address.to_canonical())
    }
}

impl Word for NetworkAddress {
    const EXPECTED: &'static str = "an address on a network, NETWORK/IP or /IP";

    fn read(text: &str) -> Option<Self> {
        text.parse().ok()
    }
}

impl Word for NamespacedHostname {
    const EXPECTED: &'static str = "a hostname in a namespace, NAMESPACE/HOSTNAME";

    fn read(text: &str) -> Option<Self> {
        text.parse().ok().map(|name| texts::hostname(&name))
    }
}

impl Word for GatewayDestination {
    const EXPECTED: &'static str = "the place of a gateway, NETWORK/IP, /IP or NAMESPACE/HOSTNAME";

    fn read(text: &str) -> Option<Self> {
        let by_address = text.parse().ok().map(Self::Address);
        by_address.or_else(|| text.parse().ok().map(Self::Hostname))
    }
}

/// A length of time: a number and s, m, h or d.
impl Word for Duration {
    const EXPECTED: &'static str = "a length of time such as 90s, 30m, 24h or 7d";

    fn read(text: &str) -> Option<Self> {
        let unit = match text.chars().last()? {
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            _ => return None,
        };
        let number: u64 = text.get(..text.len() - 1)?.parse().ok()?;
        number.checked_mul(unit).filter(|seconds| *seconds > 0).map(Self::from_secs)
    }
}

/// Words of which upper and lower case do not matter.
macro_rules! words {
    ($type:ty, $expected:literal, $($($word:literal)|+ => $value:path),+ $(,)?) => {
        impl Word for $type {
            const EXPECTED: &'static str = $expected;

            fn read(text: &str) -> Option<Self> {
                match text.to_ascii_lowercase().as_str() {
                    $($($word)|+ => Some($value),)+
                    _ => None,
                }
            }
        }
    };
}

words!(Protocol, "TCP or HBONE", "tcp" => Protocol::Tcp, "hbone" => Protocol::Hbone);
words!(NetworkMode, "Standard or HostNetwork",
    "standard" => NetworkMode::Standard, "hostnetwork" => NetworkMode::HostNetwork);
words!(WorkloadType, "deployment, cronjob, pod or job",
    "deployment" => WorkloadType::Deployment, "cronjob" => WorkloadType::CronJob,
    "pod" => WorkloadType::Pod, "job" => WorkloadType::Job);
words!(Health, "Healthy or Unhealthy", "healthy" => Health::Healthy, "unhealthy" => Health::Unhealthy);
words!(TunnelProtocol, "NONE or PROXY", "none" => TunnelProtocol::None, "proxy" => TunnelProtocol::Proxy);
words!(Scope, "Region, Zone, Subzone, Node, Cluster or Network",
    "region" => Scope::Region, "zone" => Scope::Zone, "subzone" => Scope::Subzone,
    "node" => Scope::Node, "cluster" => Scope::Cluster, "network" => Scope::Network);
words!(LoadBalancerMode, "Standard, Strict, Failover or Passthrough",
    "standard" => LoadBalancerMode::Standard, "strict" => LoadBalancerMode::Strict,
    "failover" => LoadBalancerMode::Failover, "passthrough" => LoadBalancerMode::Passthrough);
words!(HealthPolicy, "OnlyHealthy or AllowAll",
    "onlyhealthy" => HealthPolicy::OnlyHealthy, "allowall" => HealthPolicy::AllowAll);
words!(IpFamilies, "Automatic, IPv4, IPv6 or Dual",
    "automatic" => IpFamilies::Automatic, "ipv4" => IpFamilies::Ipv4Only,
    "ipv6" => IpFamilies::Ipv6Only, "dual" => IpFamilies::Dual);
words!(Visibility, "Public or Namespace",
    "public" => Visibility::Public, "namespace" => Visibility::Namespace);
words!(policy::Scope, "Global, Namespace or WorkloadSelector",
    "global" => policy::Scope::Global, "namespace" => policy::Scope::Namespace,
    "workloadselector" => policy::Scope::WorkloadSelector);
words!(policy::Action, "Allow or Deny",
    "allow" => policy::Action::Allow, "deny" => policy::Action::Deny);
