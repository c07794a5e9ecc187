//! What the mesh answers to a question: addresses, ports, nothing of that type, or that others are to be asked.
//!
//! A pure function of a snapshot and of who asks. Invariants: a name that the mesh knows is never answered with "no such name",
//! and its addresses never come from elsewhere, unless the mesh says that they do (services that are passed through, and
//! hosts that are known by name only). Types that the mesh knows nothing of are the cluster's for names of Kubernetes, where
//! there are none, and their zone's for all other names.

use std::net::IpAddr;
use std::sync::Arc;

use hickory_proto::rr::RecordType;
use mesh::service::{HealthPolicy, IpFamilies, LoadBalancerMode};
use mesh::workload::Health;
use mesh::{Endpoint, Service, Workload};
use rand::SeedableRng as _;
use rand::rngs::StdRng;
use rand::seq::SliceRandom as _;

use super::find::{Asker, Found, Holder, label_of};
use super::host::Host;

/// Ports and endpoints that one answer names at most: more than a message holds.
const MAX_PORTS: usize = 1000;
/// The weights of all ports in an answer, together.
const WEIGHTS: u16 = 100;

/// What becomes of a question.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Resolution {
    /// It is the mesh's.
    Answer(Answer),
    /// It is for the resolver that the application asked.
    Forward {
        /// The zone of the name if the mesh knows that: should the resolver know no such name, there is nothing of this type.
        known: Option<Host>,
    },
}

/// What is said of a name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    /// The name that the answer is about, where it is another one than was asked for.
    pub(crate) alias: Option<Host>,
    /// What there is, in random order. Nothing: there is nothing of this type.
    pub(crate) data: Vec<Data>,
    /// Addresses of names in `data`.
    pub(crate) glue: Vec<(Host, IpAddr)>,
    /// The zone that the name is in.
    pub(crate) zone: Host,
}

/// One record's data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Data {
    /// A or AAAA.
    Address(IpAddr),
    /// SRV.
    Port {
        /// The port.
        port: u16,
        /// Its share, in comparison with the others.
        weight: u16,
        /// Who listens there.
        target: Host,
    },
}

/// Whether addresses are the mesh's to give.
enum Addresses {
    Known(Vec<IpAddr>),
    /// Others know them.
    Elsewhere,
}

impl Asker<'_> {
    /// Answers a question.
    pub(crate) fn resolve(&self, asked: &Host, kind: RecordType) -> Resolution {
        if kind == RecordType::SRV && asked.as_str().starts_with('_') {
            return self.port_by_name(asked);
        }
        let Some(found) = self.find(asked) else { return Resolution::Forward { known: None } };
        match kind {
            RecordType::A | RecordType::AAAA | RecordType::ANY => match self.addresses(&found.holder) {
                Addresses::Known(addresses) => self.answer(&found, self.of_kind(addresses, kind)),
                Addresses::Elsewhere => Resolution::Forward { known: None },
            },
            RecordType::SRV => self.ports(&found, None),
            // What they would hint at are addresses beside those of the mesh (RFC 9460 §7.3).
            RecordType::HTTPS | RecordType::SVCB => match self.addresses(&found.holder) {
                Addresses::Known(_) => self.answer(&found, Vec::new()),
                Addresses::Elsewhere => Resolution::Forward { known: None },
            },
            _ => self.other(&found),
        }
    }

    /// A type that the mesh has nothing of.
    fn other(&self, found: &Found) -> Resolution {
        if self.is_of_kubernetes(found) {
            return self.answer(found, Vec::new());
        }
        Resolution::Forward { known: (!found.is_alias).then(|| self.zone(found)) }
    }

    fn answer(&self, found: &Found, data: Vec<Data>) -> Resolution {
        let alias = found.is_alias.then(|| found.host.clone());
        Resolution::Answer(Answer { alias, data, glue: Vec::new(), zone: self.zone(found) })
    }

    /// The addresses of the family that is asked for, shuffled.
    fn of_kind(&self, addresses: Vec<IpAddr>, kind: RecordType) -> Vec<Data> {
        let wanted = |ip: &IpAddr| match ip {
            IpAddr::V4(_) => kind != RecordType::AAAA,
            IpAddr::V6(_) => kind != RecordType::A && self.ipv6,
        };
        let mut data: Vec<_> = addresses.into_iter().filter(wanted).map(Data::Address).collect();
        data.shuffle(&mut StdRng::seed_from_u64(self.seed));
        data
    }

    fn addresses(&self, holder: &Holder) -> Addresses {
        match holder {
            Holder::Service(service) => self.addresses_of_service(service),
            Holder::Endpoint(_, address) => Addresses::Known(vec![*address]),
            Holder::Workloads(workloads) => {
                let ready = workloads.iter().filter(|workload| workload.status == Health::Healthy);
                addresses_of_workloads(ready, IpFamilies::Automatic)
            }
        }
    }

    /// Virtual addresses; an address of a range that is virtual; those of ready endpoints.
    fn addresses_of_service(&self, service: &Service) -> Addresses {
        if !service.vips.is_empty() {
            let ours = service.vips.iter().filter(|vip| *vip.network == *self.network);
            return Addresses::Known(ours.map(|vip| vip.address).collect());
        }
        // Its connections go where they are addressed, which must be where its host really is.
        if service.load_balancer.mode == LoadBalancerMode::Passthrough {
            return Addresses::Elsewhere;
        }
        if !service.cidr_vips.is_empty() {
            let ours = service.cidr_vips.iter().filter(|vip| *vip.network == *self.network);
            return Addresses::Known(ours.filter_map(|vip| vip.cidr.hosts().next()).collect());
        }
        let ready = self.ready(service);
        addresses_of_workloads(ready.iter().map(|endpoint| endpoint.workload), service.ip_families)
    }

    /// The endpoints on the client's network that a service wants to be used.
    fn ready(&self, service: &Service) -> Vec<Endpoint<'_>> {
        let all = service.load_balancer.health_policy == HealthPolicy::AllowAll;
        let key = service.key();
        let endpoints = self.snapshot.endpoints(&key);
        endpoints
            .filter(|endpoint| *endpoint.workload.network == *self.network)
            .filter(|endpoint| all || endpoint.workload.status == Health::Healthy)
            .collect()
    }

    /// `_PORT._tcp.HOST`. The mesh knows no names of ports, but the numbers: the cluster's DNS is asked about names.
    fn port_by_name(&self, asked: &Host) -> Resolution {
        let unknown = Resolution::Forward { known: None };
        let Some((port, rest)) = asked.split_first() else { return unknown };
        let Some((protocol, host)) = rest.split_first() else { return unknown };
        let number = port.strip_prefix('_').and_then(|port| port.parse::<u16>().ok());
        match (number, self.find(&host)) {
            (Some(port), Some(found)) if protocol == "_tcp" && !found.is_alias => {
                self.ports(&found, Some(port))
            }
            _ => unknown,
        }
    }

    /// The ports of a service, or the one that is asked for: at its own name, or without virtual addresses at each endpoint.
    fn ports(&self, found: &Found, only: Option<u16>) -> Resolution {
        let service = match &found.holder {
            Holder::Service(service) => service,
            Holder::Endpoint(..) | Holder::Workloads(_) => return self.other(found),
        };
        let wanted = service.ports.keys().copied().filter(|port| only.is_none_or(|only| only == *port));
        let wanted: Vec<u16> = wanted.take(MAX_PORTS).collect();
        if only.is_some() && wanted.is_empty() {
            return Resolution::Forward { known: None };
        }
        let is_headless = service.vips.is_empty() && service.cidr_vips.is_empty();
        let mut pairs = match self.addresses_of_service(service) {
            Addresses::Elsewhere => return Resolution::Forward { known: None },
            // The cluster's DNS calls the pods by their hostnames.
            Addresses::Known(_) if is_headless && self.is_of_kubernetes(found) => {
                return Resolution::Forward { known: Some(self.zone(found)) };
            }
            Addresses::Known(_) if is_headless => self.endpoint_ports(found, service, &wanted),
            Addresses::Known(addresses) => {
                let addresses: Vec<_> =
                    addresses.into_iter().filter(|ip| ip.is_ipv4() || self.ipv6).collect();
                wanted.iter().map(|port| (*port, found.host.clone(), addresses.clone())).collect()
            }
        };
        pairs.shuffle(&mut StdRng::seed_from_u64(self.seed));
        let count = u16::try_from(pairs.len().max(1)).unwrap_or(u16::MAX);
        let weight = (WEIGHTS / count).max(1);
        let mut glue: Vec<(Host, IpAddr)> = Vec::new();
        let mut data = Vec::with_capacity(pairs.len());
        for (port, target, addresses) in pairs {
            if is_headless || glue.is_empty() {
                glue.extend(addresses.into_iter().map(|address| (target.clone(), address)));
            }
            data.push(Data::Port { port, weight, target });
        }
        let alias = found.is_alias.then(|| found.host.clone());
        Resolution::Answer(Answer { alias, data, glue, zone: self.zone(found) })
    }

    /// Each ready endpoint under a name of its own, with its own ports.
    fn endpoint_ports(
        &self,
        found: &Found,
        service: &Service,
        wanted: &[u16],
    ) -> Vec<(u16, Host, Vec<IpAddr>)> {
        let mut pairs = Vec::new();
        for endpoint in self.ready(service) {
            for port in wanted.iter().filter_map(|port| endpoint.target_port(service, *port)) {
                let usable = |ip: &&IpAddr| (ip.is_ipv4() || self.ipv6) && is_of(service.ip_families, ip);
                let Some(address) = endpoint.workload.addresses.iter().find(usable) else { continue };
                let name = Host::parse(&label_of(*address)).and_then(|label| label.below(&found.host));
                pairs.extend(name.map(|name| (port, name, vec![*address])));
                if pairs.len() >= MAX_PORTS {
                    return pairs;
                }
            }
        }
        pairs
    }

    /// Names below `svc` of the cluster's domain are Kubernetes' own.
    fn is_of_kubernetes(&self, found: &Found) -> bool {
        let rest = match &found.holder {
            Holder::Service(service) | Holder::Endpoint(service, _) => Host::parse(&service.hostname),
            Holder::Workloads(_) => Some(found.host.clone()),
        };
        let below_domain = rest.and_then(|host| host.without(self.cluster_domain));
        below_domain.is_some_and(|host| host.as_str().ends_with(".svc"))
    }

    /// The zone of a name: the cluster's, or the host as if it were one.
    fn zone(&self, found: &Found) -> Host {
        if self.is_of_kubernetes(found) {
            return self.cluster_domain.clone();
        }
        let hostname = match &found.holder {
            Holder::Service(service) | Holder::Endpoint(service, _) => &*service.hostname,
            Holder::Workloads(_) => found.host.as_str(),
        };
        Host::parse(hostname.strip_prefix("*.").unwrap_or(hostname)).unwrap_or_else(|| found.host.clone())
    }
}

/// All addresses of workloads, once each. Where none of them has one but a hostname, that is to be resolved by others.
fn addresses_of_workloads<'a>(
    workloads: impl Iterator<Item = &'a Arc<Workload>>,
    families: IpFamilies,
) -> Addresses {
    let (mut addresses, mut by_name_only) = (Vec::new(), false);
    for workload in workloads {
        by_name_only |= workload.addresses.is_empty() && !workload.hostname.is_empty();
        addresses.extend(workload.addresses.iter().copied());
    }
    if addresses.is_empty() && by_name_only {
        return Addresses::Elsewhere;
    }
    addresses.retain(|address| is_of(families, address));
    addresses.sort_unstable();
    addresses.dedup();
    Addresses::Known(addresses)
}

fn is_of(families: IpFamilies, address: &IpAddr) -> bool {
    match families {
        IpFamilies::Ipv4Only => address.is_ipv4(),
        IpFamilies::Ipv6Only => address.is_ipv6(),
        IpFamilies::Automatic | IpFamilies::Dual => true,
    }
}
