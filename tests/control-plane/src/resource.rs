//! One resource as the control plane holds it: a workload, a service or a policy, with its names and version.
//!
//! Invariant: equal content has an equal version, in every process. The encoding without aliases, which goes to
//! all clients that take everything, is made once.

use std::hash::Hasher;
use std::net::IpAddr;

use bytes::Bytes;
use prost::Message as _;
use prost_types::Any;

use crate::wire::discovery::{self, ADDRESS, AUTHORIZATION};
use crate::wire::security::Authorization;
use crate::wire::workload::{Address, AddressKind, NetworkAddress, Service, Workload};

/// A resource.
#[derive(Clone, Debug)]
pub struct Resource {
    /// Its name in its type.
    pub name: String,
    /// Its type.
    pub type_url: &'static str,
    /// Its version; policies have none.
    pub version: String,
    /// What it is found by on demand: `network/address`, each.
    pub addresses: Vec<String>,
    /// The node of a workload.
    pub node: String,
    /// The services of a workload.
    pub services: Vec<String>,
    body: Any,
    plain: Bytes,
}

impl Resource {
    /// Any bytes as the body of a resource, to be in the control plane's state for good.
    pub fn raw(type_url: &'static str, name: &str, body: Vec<u8>) -> Self {
        Self::new(type_url, name.to_owned(), Any { type_url: type_url.to_owned(), value: body })
    }

    /// The resource on the wire, for a client that asks by name.
    pub fn with_aliases(&self) -> Bytes {
        self.encode(self.addresses.clone())
    }

    /// The resource on the wire, for a client that takes all.
    pub fn plain(&self) -> Bytes {
        self.plain.clone()
    }

    fn new(type_url: &'static str, name: String, body: Any) -> Self {
        let version = if type_url == AUTHORIZATION { String::new() } else { version(&body.value) };
        let (addresses, node, services) = Default::default();
        let mut made = Self { name, type_url, version, addresses, node, services, body, plain: Bytes::new() };
        made.plain = made.encode(Vec::new());
        made
    }

    fn encode(&self, aliases: Vec<String>) -> Bytes {
        let message = discovery::Resource {
            version: self.version.clone(),
            resource: Some(self.body.clone()),
            name: self.name.clone(),
            aliases,
            ttl: None,
        };
        message.encode_to_vec().into()
    }
}

impl From<Workload> for Resource {
    fn from(workload: Workload) -> Self {
        let mut addresses = Vec::new();
        for address in &workload.addresses {
            addresses.extend(key(&workload.network, address));
        }
        let (name, node) = (workload.uid.clone(), workload.node.clone());
        let services = workload.services.keys().cloned().collect();
        let body = any(AddressKind::Workload(Box::new(workload)));
        Self { addresses, node, services, ..Self::new(ADDRESS, name, body) }
    }
}

impl From<Service> for Resource {
    fn from(service: Service) -> Self {
        let addresses = service.addresses.iter().filter(|address| address.length.is_none());
        let addresses =
            addresses.filter_map(|NetworkAddress { network, address, .. }| key(network, address)).collect();
        let name = format!("{}/{}", service.namespace, service.hostname);
        let body = any(AddressKind::Service(Box::new(service)));
        Self { addresses, ..Self::new(ADDRESS, name, body) }
    }
}

impl From<Authorization> for Resource {
    fn from(policy: Authorization) -> Self {
        let name = format!("{}/{}", policy.namespace, policy.name);
        Self::raw(AUTHORIZATION, &name, policy.encode_to_vec())
    }
}

fn any(kind: AddressKind) -> Any {
    Any { type_url: ADDRESS.to_owned(), value: Address { kind: Some(kind) }.encode_to_vec() }
}

/// `network/address`, if the address is one.
fn key(network: &str, address: &[u8]) -> Option<String> {
    let address = match address.len() {
        4 => IpAddr::from(<[u8; 4]>::try_from(address).ok()?),
        16 => IpAddr::from(<[u8; 16]>::try_from(address).ok()?),
        _ => return None,
    };
    Some(format!("{network}/{address}"))
}

/// FNV-1a of the content, not zero-padded.
fn version(content: &[u8]) -> String {
    struct Fnv(u64);
    impl Hasher for Fnv {
        fn finish(&self) -> u64 {
            self.0
        }
        fn write(&mut self, bytes: &[u8]) {
            for byte in bytes {
                self.0 = (self.0 ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
            }
        }
    }
    let mut hash = Fnv(0xcbf2_9ce4_8422_2325);
    hash.write(content);
    format!("{:x}", hash.finish())
}
