//! One copy of what many resources say.
//!
//! Namespaces, nodes, owners and service names repeat by the thousand, and so do whole parts: where something runs, what it
//! serves on which ports, its gateways. The editor of a snapshot passes each resource through here before it keeps it.
//! Invariant: resources are equal to what they were; what nobody holds any more is forgotten at the latest when as much again
//! has come.

use std::collections::HashSet;
use std::hash::Hash;
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::address::NamespacedHostname;
use crate::service::Service;
use crate::sorted::SortedMap;
use crate::workload::{GatewayAddress, GatewayDestination, Locality, PortMap, Workload};

/// So much is kept before anything is looked through for what is unused.
const SWEEP_FROM: usize = 1024;

type Known<T> = HashSet<T, RandomState>;

/// Texts and other parts of resources, each once.
#[derive(Debug)]
pub(crate) struct Interner {
    texts: Known<Arc<str>>,
    ports: Known<PortMap>,
    served: Known<SortedMap<NamespacedHostname, PortMap>>,
    gateways: Known<Arc<GatewayAddress>>,
    localities: Known<Arc<Locality>>,
    /// With how many the next sweep is due.
    sweep_at: usize,
}

impl Default for Interner {
    fn default() -> Self {
        Self {
            texts: Known::default(),
            ports: Known::default(),
            served: Known::default(),
            gateways: Known::default(),
            localities: Known::default(),
            sweep_at: SWEEP_FROM,
        }
    }
}

impl Interner {
    /// Shares what a workload says with those that say the same. Its uid and name are its own.
    pub(crate) fn workload(&mut self, workload: &mut Workload) {
        let Workload {
            uid: _,
            name,
            namespace,
            trust_domain,
            service_account,
            network,
            addresses: _,
            protocol: _,
            network_mode: _,
            waypoint,
            network_gateway,
            node,
            canonical_name,
            canonical_revision,
            workload_type: _,
            workload_name,
            authorization_policies,
            status: _,
            cluster_id,
            hostname,
            application_tunnel: _,
            locality,
            capacity: _,
            services,
        } = workload;
        let texts = [
            namespace,
            trust_domain,
            service_account,
            network,
            node,
            canonical_name,
            canonical_revision,
            workload_name,
            cluster_id,
            hostname,
        ];
        for text in texts.into_iter().chain(&mut *authorization_policies) {
            share(&mut self.texts, text);
        }
        authorization_policies.shrink_to_fit();
        // It may be what its owner or its account is called, but is no use to others.
        if let Some(known) = self.texts.get(name) {
            *name = Arc::clone(known);
        }
        for gateway in [waypoint, network_gateway].into_iter().flatten() {
            self.shared_gateway(gateway);
        }
        self.locality(locality);
        self.served(services);
        self.sweep();
    }

    /// Shares what a service says with those that say the same, and with its workloads.
    pub(crate) fn service(&mut self, service: &mut Service) {
        for text in [&mut service.name, &mut service.namespace, &mut service.hostname] {
            share(&mut self.texts, text);
        }
        for vip in &mut service.vips {
            share(&mut self.texts, &mut vip.network);
        }
        for vip in &mut service.cidr_vips {
            share(&mut self.texts, &mut vip.network);
        }
        for name in &mut service.subject_alt_names {
            share(&mut self.texts, name);
        }
        share(&mut self.ports, &mut service.ports);
        if let Some(waypoint) = &mut service.waypoint {
            self.shared_gateway(waypoint);
        }
        for waypoint in &mut service.weighted_waypoints {
            self.gateway(&mut waypoint.destination);
        }
        service.vips.shrink_to_fit();
        service.cidr_vips.shrink_to_fit();
        service.subject_alt_names.shrink_to_fit();
        self.sweep();
    }

    fn hostname(&mut self, name: &mut NamespacedHostname) {
        share(&mut self.texts, &mut name.namespace);
        share(&mut self.texts, &mut name.hostname);
    }

    fn gateway(&mut self, gateway: &mut GatewayAddress) {
        match &mut gateway.destination {
            GatewayDestination::Address(address) => share(&mut self.texts, &mut address.network),
            GatewayDestination::Hostname(name) => self.hostname(name),
        }
    }

    fn shared_gateway(&mut self, gateway: &mut Arc<GatewayAddress>) {
        match self.gateways.get(gateway) {
            Some(known) => *gateway = Arc::clone(known),
            None => {
                self.gateway(Arc::make_mut(gateway));
                self.gateways.insert(Arc::clone(gateway));
            }
        }
    }

    fn locality(&mut self, locality: &mut Arc<Locality>) {
        match self.localities.get(locality) {
            Some(known) => *locality = Arc::clone(known),
            None => {
                let Locality { region, zone, subzone } = Arc::make_mut(locality);
                for text in [region, zone, subzone] {
                    share(&mut self.texts, text);
                }
                self.localities.insert(Arc::clone(locality));
            }
        }
    }

    fn served(&mut self, services: &mut SortedMap<NamespacedHostname, PortMap>) {
        match self.served.get(services) {
            Some(known) => *services = known.clone(),
            None => {
                let own = std::mem::take(services).into_iter().map(|(mut name, mut ports)| {
                    self.hostname(&mut name);
                    share(&mut self.ports, &mut ports);
                    (name, ports)
                });
                *services = own.collect();
                self.served.insert(services.clone());
            }
        }
    }

    /// Forgets what nobody else holds, once much has come since the last time.
    fn sweep(&mut self) {
        if self.len() < self.sweep_at {
            return;
        }
        // What holds others goes before them.
        self.served.retain(SortedMap::is_shared);
        self.ports.retain(SortedMap::is_shared);
        self.gateways.retain(|gateway| Arc::strong_count(gateway) > 1);
        self.localities.retain(|locality| Arc::strong_count(locality) > 1);
        self.texts.retain(|text| Arc::strong_count(text) > 1);
        self.sweep_at = SWEEP_FROM.max(2 * self.len());
    }

    fn len(&self) -> usize {
        let Self { texts, ports, served, gateways, localities, sweep_at: _ } = self;
        texts.len() + ports.len() + served.len() + gateways.len() + localities.len()
    }
}

/// Puts what is known in place of its equal, or keeps it from now on.
fn share<T: Clone + Eq + Hash>(known: &mut Known<T>, value: &mut T) {
    match known.get(value) {
        Some(same) => *value = same.clone(),
        None => {
            known.insert(value.clone());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{gateway_by_host, pod, service};

    #[test]
    fn equal_parts_become_one_and_the_whole_stays_equal() {
        let mut interner = Interner::default();
        let told = |name: &str| Workload {
            node: String::from("node").into(),
            waypoint: Some(gateway_by_host("waypoint").into()),
            authorization_policies: vec![String::from("ns/policy").into()],
            ..pod(name, &["10.0.0.1"]).serving("web", [(80, 8080)])
        };
        let [mut one, mut other] = [told("one"), told("other")];
        interner.workload(&mut one);
        interner.workload(&mut other);
        assert_eq!((&one, &other), (&told("one"), &told("other")));
        assert!(Arc::ptr_eq(&one.node, &other.node) && Arc::ptr_eq(&one.namespace, &other.namespace));
        assert!(Arc::ptr_eq(&one.authorization_policies[0], &other.authorization_policies[0]));
        assert!(Arc::ptr_eq(one.waypoint.as_ref().unwrap(), other.waypoint.as_ref().unwrap()));
        assert!(Arc::ptr_eq(&one.locality, &other.locality) && one.services.is_shared());
        let name = |workload: &Workload| Arc::clone(&workload.services.keys().next().unwrap().hostname);
        assert!(Arc::ptr_eq(&name(&one), &name(&other)));
        let mut web = service("web", &["/10.1.0.1"]);
        interner.service(&mut web);
        assert_eq!(web, service("web", &["/10.1.0.1"]));
        assert!(Arc::ptr_eq(&web.hostname, &name(&one)));
    }

    #[test]
    fn what_nobody_holds_is_forgotten() {
        let mut interner = Interner::default();
        let mut kept = pod("kept", &[]);
        interner.workload(&mut kept);
        for n in 0..50_000_u32 {
            let node: Arc<str> = format!("node-{n}").into();
            let locality = Locality { zone: Arc::clone(&node), ..Locality::default() }.into();
            let mut passing = Workload { node, locality, ..pod("passing", &[]) }.serving(&n.to_string(), []);
            interner.workload(&mut passing);
        }
        assert!(interner.len() <= 2 * SWEEP_FROM, "{} are kept", interner.len());
        assert!(interner.texts.contains("default"));
    }
}
