//! Ranges of virtual addresses.
//!
//! A range is found by its exact prefix, tried for every length of which there are ranges, longest first. Meshes have few
//! lengths, so this beats walking a tree, and it shares structure as every table does.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;

use super::entries::{ByRange, extent};
use super::table::Table;
use crate::address::NetworkAddress;
use crate::service::Service;

/// Services by the ranges they claim.
#[derive(Clone, Default)]
pub(super) struct CidrVips {
    ranges: Table<ByRange>,
    /// How many ranges there are of each length.
    v4: Arc<BTreeMap<u8, usize>>,
    v6: Arc<BTreeMap<u8, usize>>,
}

impl CidrVips {
    /// The best service whose range holds an address: of the client's namespace, then of the longest prefix,
    /// then canonical.
    pub(super) fn find(&self, address: &NetworkAddress, client_namespace: &str) -> Option<&Arc<Service>> {
        if self.ranges.is_empty() {
            return None;
        }
        let lengths = match address.address {
            IpAddr::V4(_) => &self.v4,
            IpAddr::V6(_) => &self.v6,
        };
        let mut best: Option<(u8, &Arc<Service>)> = None;
        for length in lengths.keys().rev() {
            let Ok(cidr) = IpNet::new(address.address, *length).map(|cidr| cidr.trunc()) else { continue };
            let network = &*address.network;
            let claims = self.ranges.matching(extent(network, cidr), |entry| entry.is_of(network, cidr));
            for ByRange { of, .. } in claims.filter(|entry| entry.is_visible_to(client_namespace)) {
                let better = best.is_none_or(|(of_length, other)| {
                    let rank = |length: u8, service: &Service| {
                        (*service.namespace == *client_namespace, length, service.canonical)
                    };
                    let order = rank(*length, of).cmp(&rank(of_length, other));
                    // Of equals always the same one.
                    order
                        .then_with(|| (&of.namespace, &of.hostname).cmp(&(&other.namespace, &other.hostname)))
                        .is_gt()
                });
                if better {
                    best = Some((*length, of));
                }
            }
        }
        best.map(|(_, service)| service)
    }

    pub(super) fn insert(&mut self, service: &Arc<Service>) {
        for range in &service.cidr_vips {
            *self.lengths(&range.cidr).entry(range.cidr.prefix_len()).or_default() += 1;
            let (range, is_public) = (range.clone(), service.is_public());
            self.ranges.insert(ByRange::new(range, is_public, Arc::clone(service)));
        }
    }

    pub(super) fn remove(&mut self, service: &Arc<Service>) {
        for range in &service.cidr_vips {
            let removed = self.ranges.remove(extent(&range.network, range.cidr), |entry| {
                entry.is_of(&range.network, range.cidr) && Arc::ptr_eq(&entry.of, service)
            });
            let (lengths, length) = (self.lengths(&range.cidr), range.cidr.prefix_len());
            if removed.is_some()
                && let Some(count) = lengths.get_mut(&length)
            {
                *count -= 1;
                if *count == 0 {
                    lengths.remove(&length);
                }
            }
        }
    }

    fn lengths(&mut self, of: &IpNet) -> &mut BTreeMap<u8, usize> {
        Arc::make_mut(match of {
            IpNet::V4(_) => &mut self.v4,
            IpNet::V6(_) => &mut self.v6,
        })
    }
}
