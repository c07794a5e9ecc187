//! Resources by their addresses, and whatever else there is once for each network.
//!
//! Invariant: a network that nothing is on any more is forgotten.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use imbl::OrdMap;

use super::slots::{Key, Slots};
use crate::address::Place;
use crate::service::Service;

/// Something for each network. Most meshes have the default one alone, which is therefore found without its name.
#[derive(Clone, Default)]
pub(super) struct ByNetwork<T> {
    default: T,
    others: OrdMap<Arc<str>, T>,
}

impl<T> ByNetwork<T> {
    pub(super) fn get(&self, network: &str) -> Option<&T> {
        if network.is_empty() { Some(&self.default) } else { self.others.get(network) }
    }
}

impl<T: Clone + Default> ByNetwork<T> {
    /// Changes what there is for a network, which afterwards may be nothing.
    pub(super) fn change(
        &mut self,
        network: &Arc<str>,
        change: impl FnOnce(&mut T),
        is_empty: impl FnOnce(&T) -> bool,
    ) {
        if network.is_empty() {
            return change(&mut self.default);
        }
        let of = self.others.entry(Arc::clone(network)).or_default();
        change(of);
        if is_empty(of) {
            self.others.remove(network);
        }
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self, is_empty: impl FnOnce(&T) -> bool) -> bool {
        self.others.is_empty() && is_empty(&self.default)
    }
}

/// What was found.
pub(super) struct Found<'a, T> {
    pub(super) of: &'a Arc<T>,
    is_public: bool,
}

impl Found<'_, Service> {
    /// Whether clients of this namespace see it.
    pub(super) fn is_visible_to(&self, namespace: &str) -> bool {
        self.is_public || self.of.visible_to(namespace)
    }
}

/// All that is there of a key.
pub(super) fn found<K: Key, T>(slots: &Slots<K, T>, key: K) -> impl Iterator<Item = Found<'_, T>> {
    slots.matching(key).map(|slot| Found { of: &slot.of, is_public: slot.is_public })
}

/// Resources by the addresses that they have on their networks.
pub(super) struct Addresses<T>(ByNetwork<Families<T>>);

/// Those of one network. An IPv4 address takes half as much room as the other ones.
struct Families<T> {
    v4: Slots<Ipv4Addr, T>,
    v6: Slots<Ipv6Addr, T>,
}

impl<T> Addresses<T> {
    /// What has an address, in no order.
    pub(super) fn matching(&self, at: Place<'_>) -> impl Iterator<Item = Found<'_, T>> {
        let of = self.0.get(at.network);
        let (v4, v6) = match at.address {
            IpAddr::V4(address) => (of.map(|of| found(&of.v4, address)), None),
            IpAddr::V6(address) => (None, of.map(|of| found(&of.v6, address))),
        };
        v4.into_iter().flatten().chain(v6.into_iter().flatten())
    }

    /// Adds a resource under an address. Whether it is public is asked before it is looked at.
    pub(super) fn insert(&mut self, network: &Arc<str>, address: IpAddr, is_public: bool, of: &Arc<T>) {
        let of = Arc::clone(of);
        let change = |families: &mut Families<T>| match address {
            IpAddr::V4(address) => families.v4.insert(address, is_public, of),
            IpAddr::V6(address) => families.v6.insert(address, is_public, of),
        };
        self.0.change(network, change, Families::is_empty);
    }

    /// Takes a resource out from under an address.
    pub(super) fn remove(&mut self, network: &Arc<str>, address: IpAddr, of: &Arc<T>) {
        let change = |families: &mut Families<T>| match address {
            IpAddr::V4(address) => families.v4.remove(address, of),
            IpAddr::V6(address) => families.v6.remove(address, of),
        };
        self.0.change(network, change, Families::is_empty);
    }

    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty(Families::is_empty)
    }
}

impl<T> Families<T> {
    fn is_empty(&self) -> bool {
        self.v4.is_empty() && self.v6.is_empty()
    }
}

impl<T> Clone for Addresses<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Default for Addresses<T> {
    fn default() -> Self {
        Self(ByNetwork::default())
    }
}

impl<T> Clone for Families<T> {
    fn clone(&self) -> Self {
        Self { v4: self.v4.clone(), v6: self.v6.clone() }
    }
}

impl<T> Default for Families<T> {
    fn default() -> Self {
        Self { v4: Slots::default(), v6: Slots::default() }
    }
}
