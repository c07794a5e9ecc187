//! What the snapshot's tables hold, and by which key.
//!
//! Where the key is part of the resource it is not stored again.

use std::hash::{Hash, Hasher};
use std::net::IpAddr;
use std::sync::Arc;

use imbl::OrdMap;
use ipnet::IpNet;

use super::table::Entry;
use crate::address::{NamespacedHostname, NetworkAddress, NetworkCidr};
use crate::service::Service;
use crate::workload::Workload;

/// A workload by its uid.
#[derive(Clone)]
pub(super) struct ByUid(pub(super) Arc<Workload>);

/// A workload by namespace and name.
#[derive(Clone)]
pub(super) struct ByPod(pub(super) Arc<Workload>);

/// A resource by its hostname, whatever the case of its letters.
pub(super) struct ByHostname<T>(pub(super) Arc<T>);

/// A service by namespace and hostname.
#[derive(Clone)]
pub(super) struct ByName(pub(super) Arc<Service>);

/// A resource by one of its addresses. The address is stored, and whether everybody may find the resource, so that a look-up
/// need not go to it. The fields of the address are the entry's own, for there is no room between them otherwise.
pub(super) struct ByAddress<T> {
    network: Arc<str>,
    address: IpAddr,
    is_public: bool,
    pub(super) of: Arc<T>,
}

/// A service by a range of virtual addresses. Whether everybody may find it is stored here too.
#[derive(Clone)]
pub(super) struct ByRange {
    network: Arc<str>,
    cidr: IpNet,
    is_public: bool,
    pub(super) of: Arc<Service>,
}

impl<T> ByAddress<T> {
    pub(super) fn new(address: NetworkAddress, is_public: bool, of: Arc<T>) -> Self {
        let NetworkAddress { network, address } = address;
        Self { network, address, is_public, of }
    }

    /// Whether it is of this address.
    pub(super) fn is_at(&self, address: &NetworkAddress) -> bool {
        self.address == address.address && self.network == address.network
    }
}

impl ByAddress<Service> {
    /// Whether clients of this namespace see it.
    pub(super) fn is_visible_to(&self, namespace: &str) -> bool {
        self.is_public || self.of.visible_to(namespace)
    }
}

impl ByRange {
    pub(super) fn new(range: NetworkCidr, is_public: bool, of: Arc<Service>) -> Self {
        let NetworkCidr { network, cidr } = range;
        Self { network, cidr, is_public, of }
    }

    /// Whether it is this range of this network.
    pub(super) fn is_of(&self, network: &str, cidr: IpNet) -> bool {
        self.cidr == cidr && *self.network == *network
    }

    /// Whether clients of this namespace see it.
    pub(super) fn is_visible_to(&self, namespace: &str) -> bool {
        self.is_public || self.of.visible_to(namespace)
    }
}

impl<T> Clone for ByHostname<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> Clone for ByAddress<T> {
    fn clone(&self) -> Self {
        Self {
            network: Arc::clone(&self.network),
            address: self.address,
            is_public: self.is_public,
            of: Arc::clone(&self.of),
        }
    }
}

/// The workloads that serve a service, by uid.
#[derive(Clone)]
pub(super) struct Members {
    pub(super) service: NamespacedHostname,
    pub(super) workloads: OrdMap<Arc<str>, Arc<Workload>>,
}

/// A hostname that hashes and compares without regard to the case of its letters (RFC 4343).
#[derive(Clone, Copy)]
pub(super) struct Folded<'a>(pub(super) &'a str);

impl Hash for Folded<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.bytes().for_each(|byte| state.write_u8(byte.to_ascii_lowercase()));
    }
}

impl PartialEq for Folded<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(other.0)
    }
}

/// What has a hostname.
pub(super) trait Hosted {
    fn hostname(&self) -> &str;
}

impl Hosted for Workload {
    fn hostname(&self) -> &str {
        &self.hostname
    }
}

impl Hosted for Service {
    fn hostname(&self) -> &str {
        &self.hostname
    }
}

/// An address as a key. It is hashed for each connection, and most often on the default network: nothing but the address
/// is, then.
#[derive(Clone, Copy)]
pub(super) struct Place<'a> {
    pub(super) network: &'a str,
    pub(super) address: IpAddr,
}

impl Hash for Place<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        if !self.network.is_empty() {
            self.network.hash(state);
        }
        match self.address {
            IpAddr::V4(address) => state.write_u32(address.to_bits()),
            IpAddr::V6(address) => state.write_u128(address.to_bits()),
        }
    }
}

/// The key of an address.
pub(super) fn place(address: &NetworkAddress) -> Place<'_> {
    Place { network: &address.network, address: address.address }
}

/// A range as a key: its first address, and how long its prefix is.
#[derive(Hash)]
pub(super) struct Extent<'a> {
    first: Place<'a>,
    prefix: u8,
}

/// The key of a range.
pub(super) fn extent(network: &str, cidr: IpNet) -> Extent<'_> {
    Extent { first: Place { network, address: cidr.network() }, prefix: cidr.prefix_len() }
}

/// The key of a service.
pub(super) fn name(key: &NamespacedHostname) -> (&str, &str) {
    (&key.namespace, &key.hostname)
}

impl Entry for ByUid {
    fn key(&self) -> impl Hash {
        &*self.0.uid
    }
}

impl Entry for ByPod {
    fn key(&self) -> impl Hash {
        (&*self.0.namespace, &*self.0.name)
    }
}

impl<T: Hosted> Entry for ByHostname<T> {
    fn key(&self) -> impl Hash {
        Folded(self.0.hostname())
    }
}

impl Entry for ByName {
    fn key(&self) -> impl Hash {
        (&*self.0.namespace, &*self.0.hostname)
    }
}

impl<T> Entry for ByAddress<T> {
    fn key(&self) -> impl Hash {
        Place { network: &self.network, address: self.address }
    }
}

impl Entry for ByRange {
    fn key(&self) -> impl Hash {
        extent(&self.network, self.cidr)
    }
}

impl Entry for Members {
    fn key(&self) -> impl Hash {
        name(&self.service)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// There are hundreds of thousands of them, and each change copies a hundred.
    #[test]
    fn entries_are_small() {
        assert_eq!(size_of::<ByAddress<Workload>>(), 48);
        assert_eq!(size_of::<ByRange>(), 48);
    }
}
