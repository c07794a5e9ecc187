//! Ranges of virtual addresses.
//!
//! A range is found by its exact prefix, tried for every length of which there are ranges, longest first. Meshes have few
//! lengths, so this beats walking a tree, and it shares structure as every table does. Invariant: the lengths are those of the
//! ranges that are there.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use ipnet::IpNet;

use super::addresses::{ByNetwork, Found, found};
use super::slots::{Key, Slots};
use crate::address::Place;
use crate::service::Service;

/// Services by the ranges they claim.
#[derive(Clone, Default)]
pub(super) struct CidrVips(ByNetwork<Ranges>);

/// Those of one network.
#[derive(Clone, Default)]
struct Ranges {
    v4: Family<Ipv4Addr>,
    v6: Family<Ipv6Addr>,
}

/// Those of one family of addresses.
struct Family<A> {
    ranges: Slots<(A, u8), Service>,
    /// How many ranges there are of each length, the longest first.
    lengths: Arc<[(u8, usize)]>,
}

/// An address of one family.
trait Address: Copy {
    /// The first address of the range that it is in.
    fn first(self, length: u8) -> Self;
}

impl Address for Ipv4Addr {
    fn first(self, length: u8) -> Self {
        let host = u32::MAX.checked_shr(length.into()).unwrap_or_default();
        Self::from_bits(self.to_bits() & !host)
    }
}

impl Address for Ipv6Addr {
    fn first(self, length: u8) -> Self {
        let host = u128::MAX.checked_shr(length.into()).unwrap_or_default();
        Self::from_bits(self.to_bits() & !host)
    }
}

/// The best service so far.
struct Best<'n, 'a> {
    client_namespace: &'n str,
    of: Option<(u8, &'a Arc<Service>)>,
}

impl CidrVips {
    /// The best service whose range holds an address: of the client's namespace, then of the longest prefix,
    /// then canonical.
    pub(super) fn find(&self, at: Place<'_>, client_namespace: &str) -> Option<&Arc<Service>> {
        let ranges = self.0.get(at.network)?;
        match at.address {
            IpAddr::V4(address) => ranges.v4.find(address, client_namespace),
            IpAddr::V6(address) => ranges.v6.find(address, client_namespace),
        }
    }

    pub(super) fn insert(&mut self, service: &Arc<Service>) {
        for range in &service.cidr_vips {
            let change = |ranges: &mut Ranges| match range.cidr {
                IpNet::V4(cidr) => ranges.v4.insert((cidr.network(), cidr.prefix_len()), service),
                IpNet::V6(cidr) => ranges.v6.insert((cidr.network(), cidr.prefix_len()), service),
            };
            self.0.change(&range.network, change, Ranges::is_empty);
        }
    }

    pub(super) fn remove(&mut self, service: &Arc<Service>) {
        for range in &service.cidr_vips {
            let change = |ranges: &mut Ranges| match range.cidr {
                IpNet::V4(cidr) => ranges.v4.remove((cidr.network(), cidr.prefix_len()), service),
                IpNet::V6(cidr) => ranges.v6.remove((cidr.network(), cidr.prefix_len()), service),
            };
            self.0.change(&range.network, change, Ranges::is_empty);
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty(|ranges| {
            ranges.is_empty() && ranges.v4.lengths.is_empty() && ranges.v6.lengths.is_empty()
        })
    }
}

impl Ranges {
    fn is_empty(&self) -> bool {
        self.v4.ranges.is_empty() && self.v6.ranges.is_empty()
    }
}

impl<A: Address> Family<A>
where
    (A, u8): Key,
{
    fn find(&self, address: A, client_namespace: &str) -> Option<&Arc<Service>> {
        let mut best = Best { client_namespace, of: None };
        for (length, _) in &*self.lengths {
            found(&self.ranges, (address.first(*length), *length))
                .for_each(|found| best.consider(*length, &found));
        }
        best.of.map(|(_, service)| service)
    }

    fn insert(&mut self, range: (A, u8), service: &Arc<Service>) {
        self.ranges.insert(range, service.is_public(), Arc::clone(service));
        self.count(range.1, |count| count + 1);
    }

    /// A range that a service names twice is there twice.
    fn remove(&mut self, range: (A, u8), service: &Arc<Service>) {
        self.ranges.remove(range, service);
        self.count(range.1, |count| count.saturating_sub(1));
    }

    /// Changes how many ranges of a length there are. There are few lengths, and they hardly ever change.
    fn count(&mut self, length: u8, change: impl FnOnce(usize) -> usize) {
        let mut lengths = self.lengths.to_vec();
        let (at, before) = match lengths.binary_search_by(|(other, _)| length.cmp(other)) {
            Ok(at) => (at, lengths.remove(at).1),
            Err(at) => (at, 0),
        };
        match change(before) {
            0 => {}
            count => lengths.insert(at, (length, count)),
        }
        self.lengths = lengths.into();
    }
}

impl<'a> Best<'_, 'a> {
    fn consider(&mut self, length: u8, found: &Found<'a, Service>) {
        let client_namespace = self.client_namespace;
        if !found.is_visible_to(client_namespace) {
            return;
        }
        let better = self.of.is_none_or(|(of_length, other)| {
            let rank = |length: u8, service: &Service| {
                (*service.namespace == *client_namespace, length, service.canonical)
            };
            let order = rank(length, found.of).cmp(&rank(of_length, other));
            // Of equals always the same one.
            order
                .then_with(|| {
                    (&found.of.namespace, &found.of.hostname).cmp(&(&other.namespace, &other.hostname))
                })
                .is_gt()
        });
        if better {
            self.of = Some((length, found.of));
        }
    }
}

impl<A> Clone for Family<A> {
    fn clone(&self) -> Self {
        Self { ranges: self.ranges.clone(), lengths: Arc::clone(&self.lengths) }
    }
}

impl<A> Default for Family<A> {
    fn default() -> Self {
        Self { ranges: Slots::default(), lengths: Arc::default() }
    }
}
