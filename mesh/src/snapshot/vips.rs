//! Ranges of virtual addresses.
//!
//! The prefix map does not share structure, so it is kept behind an `Arc` and copied only by an edit that
//! touches a service with a range. Such services are few: hosts with a wildcard.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};
use prefix_trie::PrefixMap;

use super::claims::Claims;
use crate::address::NetworkAddress;
use crate::service::Service;

/// Services by the ranges they claim, for each network.
#[derive(Clone, Debug, Default)]
pub(super) struct CidrVips {
    networks: HashMap<Arc<str>, Ranges>,
}

#[derive(Clone, Debug, Default)]
struct Ranges {
    v4: PrefixMap<Ipv4Net, Claims<Service>>,
    v6: PrefixMap<Ipv6Net, Claims<Service>>,
}

impl CidrVips {
    /// The best service whose range holds an address: of the client's namespace, then of the longest prefix,
    /// then canonical.
    pub(super) fn find(&self, address: &NetworkAddress, client_namespace: &str) -> Option<&Arc<Service>> {
        let ranges = self.networks.get(&address.network)?;
        let covering: Vec<(u8, &Claims<Service>)> = match address.address {
            IpAddr::V4(ip) => {
                ranges.v4.cover(&Ipv4Net::from(ip)).map(|(net, claims)| (net.prefix_len(), claims)).collect()
            }
            IpAddr::V6(ip) => {
                ranges.v6.cover(&Ipv6Net::from(ip)).map(|(net, claims)| (net.prefix_len(), claims)).collect()
            }
        };
        covering
            .into_iter()
            .flat_map(|(length, claims)| claims.iter().map(move |service| (length, service)))
            .filter(|(_, service)| service.visible_to(client_namespace))
            .max_by_key(|(length, service)| {
                (*service.namespace == *client_namespace, *length, service.canonical)
            })
            .map(|(_, service)| service)
    }

    pub(super) fn insert(&mut self, service: &Arc<Service>) {
        for vip in &service.cidr_vips {
            let ranges = self.networks.entry(Arc::clone(&vip.network)).or_default();
            let claims = match vip.cidr {
                IpNet::V4(net) => ranges.v4.entry(net).or_default(),
                IpNet::V6(net) => ranges.v6.entry(net).or_default(),
            };
            claims.insert(Arc::clone(service));
        }
    }

    pub(super) fn remove(&mut self, service: &Service) {
        for vip in &service.cidr_vips {
            let Some(ranges) = self.networks.get_mut(&vip.network) else { continue };
            match vip.cidr {
                IpNet::V4(net) => remove_claim(&mut ranges.v4, &net, service),
                IpNet::V6(net) => remove_claim(&mut ranges.v6, &net, service),
            }
            if ranges.v4.is_empty() && ranges.v6.is_empty() {
                self.networks.remove(&vip.network);
            }
        }
    }
}

fn remove_claim<P: prefix_trie::Prefix>(
    map: &mut PrefixMap<P, Claims<Service>>,
    prefix: &P,
    service: &Service,
) {
    if let Some(claims) = map.get_mut(prefix) {
        claims.remove(service);
        if claims.is_empty() {
            map.remove(prefix);
        }
    }
}
