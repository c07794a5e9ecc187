//! What a question's name stands for in the mesh, with the client's search list in mind.
//!
//! A resolver library turns a short name into several questions, one a domain of its search list, until one is answered. The
//! agent sees them one by one. It answers the first of them with what the library would have found in the end (`Found::is_alias`),
//! and a short name that was asked for as it is with what its search list would have found.
//!
//! Invariant: what is found is what the library would have found next, unless a name in between is one that the cluster's own
//! DNS may know: below a service of the mesh are names of its pods, which the mesh does not know.

use std::net::IpAddr;
use std::sync::Arc;

use mesh::{NetworkAddress, Service, Snapshot, Workload};

use super::host::Host;
use super::settings::Settings;

/// Who asks, and what the world looks like to them.
#[derive(Clone, Copy)]
pub(crate) struct Asker<'a> {
    /// The mesh.
    pub(crate) snapshot: &'a Snapshot,
    /// The client's namespace.
    pub(crate) namespace: &'a str,
    /// The network it is on.
    pub(crate) network: &'a str,
    /// How its applications resolve names.
    pub(crate) settings: &'a Settings,
    /// The domain of Kubernetes' names.
    pub(crate) cluster_domain: &'a Host,
    /// Whether names have IPv6 addresses for it.
    pub(crate) ipv6: bool,
    /// A random number; the same one gives the same order of answers.
    pub(crate) seed: u64,
}

/// A name of the mesh.
#[derive(Clone, Debug)]
pub(crate) struct Found {
    /// The whole name: the one that was asked for, or the one that the search list leads to.
    pub(crate) host: Host,
    /// It is another name than the one that was asked for, and the answer must say so.
    pub(crate) is_alias: bool,
    /// What it names.
    pub(crate) holder: Holder,
}

/// What has a name.
#[derive(Clone, Debug)]
pub(crate) enum Holder {
    /// A service.
    Service(Arc<Service>),
    /// One endpoint of a service without virtual addresses, by its address: `10-0-0-1.SERVICE`.
    Endpoint(Arc<Service>, IpAddr),
    /// Workloads with a hostname of their own.
    Workloads(Vec<Arc<Workload>>),
}

/// What is known of one name.
enum Look {
    Hit(Holder),
    Miss,
    /// Not known, but it is in a service's domain: the cluster's DNS may know it.
    Below,
}

impl Asker<'_> {
    /// What a name stands for, if that is the mesh's to say.
    pub(crate) fn find(&self, asked: &Host) -> Option<Found> {
        let found = |host, is_alias, holder| Some(Found { host, is_alias, holder });
        match self.look(asked) {
            Look::Hit(holder) => return found(asked.clone(), false, holder),
            Look::Below => return None,
            Look::Miss => {}
        }
        for (searched, is_alias) in self.searched(asked) {
            match self.look(&searched) {
                Look::Hit(holder) if is_alias => return found(searched, true, holder),
                // A short name keeps its own name in the answer.
                Look::Hit(holder) => return found(asked.clone(), false, holder),
                Look::Below => return None,
                Look::Miss => {}
            }
        }
        None
    }

    /// The names that a library with this search list would come to after `asked`, and whether `asked` was one of its
    /// attempts rather than what its user wrote.
    fn searched(&self, asked: &Host) -> impl Iterator<Item = (Host, bool)> {
        let Settings { search, ndots, .. } = self.settings;
        let short = asked.dots() < *ndots;
        let expanded = search.iter().filter(move |_| short).filter_map(|domain| asked.below(domain));
        let attempts = search.iter().enumerate().filter_map(|(at, domain)| {
            let written = asked.without(domain).filter(|written| written.dots() < *ndots)?;
            let later = search.iter().skip(at + 1).filter_map(|domain| written.below(domain));
            Some(later.chain([written.clone()]).collect::<Vec<_>>())
        });
        expanded.map(|host| (host, false)).chain(attempts.flatten().map(|host| (host, true)))
    }

    /// What a whole name stands for: exactly, then by the longest pattern.
    fn look(&self, host: &Host) -> Look {
        if let Some(service) = self.service(host.as_str()) {
            return Look::Hit(Holder::Service(service));
        }
        let workloads = self.workloads(host);
        if !workloads.is_empty() {
            return Look::Hit(Holder::Workloads(workloads));
        }
        if let Some((service, address)) = self.endpoint(host) {
            return Look::Hit(Holder::Endpoint(service, address));
        }
        let by_pattern = host.domains().find_map(|domain| self.service(&format!("*.{domain}")));
        match by_pattern {
            Some(service) => Look::Hit(Holder::Service(service)),
            None if host.domains().any(|domain| self.service(domain).is_some()) => Look::Below,
            None => Look::Miss,
        }
    }

    fn service(&self, hostname: &str) -> Option<Arc<Service>> {
        self.snapshot.service_by_hostname(hostname, self.namespace).cloned()
    }

    /// Workloads of this hostname on the client's network.
    fn workloads(&self, host: &Host) -> Vec<Arc<Workload>> {
        let named = self.snapshot.workloads_by_hostname(host.as_str());
        named.filter(|workload| *workload.network == *self.network).cloned().collect()
    }

    /// The endpoint that a name such as `10-0-0-1.SERVICE` means.
    fn endpoint(&self, host: &Host) -> Option<(Arc<Service>, IpAddr)> {
        let (first, rest) = host.split_first()?;
        let address = address_of_label(first)?;
        let service = self.service(rest.as_str())?;
        let key = NetworkAddress::new(self.network, address);
        let is_headless = service.vips.is_empty() && service.cidr_vips.is_empty();
        let owned = self
            .snapshot
            .endpoints(&service.key())
            .any(|endpoint| endpoint.workload.network_addresses().any(|own| own == key));
        (is_headless && owned).then_some((service, address))
    }
}

/// The label that stands for an address, as Kubernetes writes it.
pub(crate) fn label_of(address: IpAddr) -> String {
    match address {
        IpAddr::V4(address) => address.to_string().replace('.', "-"),
        // All eight groups: a label may not begin or end with a hyphen.
        IpAddr::V6(address) => address.segments().map(|group| format!("{group:x}")).join("-"),
    }
}

fn address_of_label(label: &str) -> Option<IpAddr> {
    let v4 = label.replace('-', ".").parse().map(IpAddr::V4);
    v4.or_else(|_| label.replace('-', ":").parse().map(IpAddr::V6)).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_written_as_labels() {
        for (address, label) in
            [("10.0.0.1", "10-0-0-1"), ("2001:db8::1", "2001-db8-0-0-0-0-0-1"), ("::1", "0-0-0-0-0-0-0-1")]
        {
            let address: IpAddr = address.parse().unwrap();
            assert_eq!(label_of(address), label);
            assert_eq!(address_of_label(label), Some(address));
        }
        assert_eq!(address_of_label("web-0"), None);
        assert_eq!(address_of_label("10-0-0-256"), None);
    }
}
