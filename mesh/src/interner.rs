//! One copy of what many resources say.
//!
//! Namespaces, nodes, owners and service names repeat by the thousand. The editor of a snapshot passes each resource through
//! here before it keeps it. Invariant: resources are equal to what they were; what nobody holds any more is forgotten at the
//! latest when as much again has come.

use std::collections::HashSet;
use std::sync::Arc;

use foldhash::fast::RandomState;

use crate::address::NamespacedHostname;
use crate::service::Service;
use crate::workload::{GatewayAddress, GatewayDestination, Locality, Workload};

/// So much is kept before anything is looked through for what is unused.
const SWEEP_FROM: usize = 1024;

/// Texts, each once.
#[derive(Debug)]
pub(crate) struct Interner {
    texts: HashSet<Arc<str>, RandomState>,
    /// With how many the next sweep is due.
    sweep_at: usize,
}

impl Default for Interner {
    fn default() -> Self {
        Self { texts: HashSet::default(), sweep_at: SWEEP_FROM }
    }
}

impl Interner {
    /// Shares what a workload says with those that say the same. Its uid and name are its own.
    pub(crate) fn workload(&mut self, workload: &mut Workload) {
        let Workload {
            uid: _,
            name: _,
            namespace,
            trust_domain,
            service_account,
            network,
            addresses,
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
            locality: Locality { region, zone, subzone },
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
            region,
            zone,
            subzone,
        ];
        for text in texts.into_iter().chain(&mut *authorization_policies) {
            self.text(text);
        }
        authorization_policies.shrink_to_fit();
        addresses.shrink_to_fit();
        for gateway in [waypoint, network_gateway].into_iter().flatten() {
            self.gateway(gateway);
        }
        let served = std::mem::take(services).into_iter().map(|(mut name, ports)| {
            self.hostname(&mut name);
            (name, ports)
        });
        *services = served.collect();
        self.sweep();
    }

    /// Shares what a service says with those that say the same, and with its workloads.
    pub(crate) fn service(&mut self, service: &mut Service) {
        for text in [&mut service.name, &mut service.namespace, &mut service.hostname] {
            self.text(text);
        }
        for vip in &mut service.vips {
            self.text(&mut vip.network);
        }
        for vip in &mut service.cidr_vips {
            self.text(&mut vip.network);
        }
        for name in &mut service.subject_alt_names {
            self.text(name);
        }
        if let Some(waypoint) = &mut service.waypoint {
            self.gateway(waypoint);
        }
        for waypoint in &mut service.weighted_waypoints {
            self.gateway(&mut waypoint.destination);
        }
        service.vips.shrink_to_fit();
        service.cidr_vips.shrink_to_fit();
        service.subject_alt_names.shrink_to_fit();
        self.sweep();
    }

    fn text(&mut self, text: &mut Arc<str>) {
        match self.texts.get(text) {
            Some(known) => *text = Arc::clone(known),
            None => {
                self.texts.insert(Arc::clone(text));
            }
        }
    }

    fn hostname(&mut self, name: &mut NamespacedHostname) {
        self.text(&mut name.namespace);
        self.text(&mut name.hostname);
    }

    fn gateway(&mut self, gateway: &mut GatewayAddress) {
        match &mut gateway.destination {
            GatewayDestination::Address(address) => self.text(&mut address.network),
            GatewayDestination::Hostname(name) => self.hostname(name),
        }
    }

    /// Forgets what nobody else holds, once much has come since the last time.
    fn sweep(&mut self) {
        if self.texts.len() < self.sweep_at {
            return;
        }
        self.texts.retain(|text| Arc::strong_count(text) > 1);
        self.sweep_at = SWEEP_FROM.max(2 * self.texts.len());
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
            waypoint: Some(gateway_by_host("waypoint")),
            authorization_policies: vec![String::from("ns/policy").into()],
            ..pod(name, &["10.0.0.1"]).serving("web", [(80, 8080)])
        };
        let [mut one, mut other] = [told("one"), told("other")];
        interner.workload(&mut one);
        interner.workload(&mut other);
        assert_eq!((&one, &other), (&told("one"), &told("other")));
        assert!(Arc::ptr_eq(&one.node, &other.node) && Arc::ptr_eq(&one.namespace, &other.namespace));
        assert!(Arc::ptr_eq(&one.authorization_policies[0], &other.authorization_policies[0]));
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
            let mut passing = Workload { node: format!("node-{n}").into(), ..pod("passing", &[]) };
            interner.workload(&mut passing);
        }
        assert!(interner.texts.len() <= 2 * SWEEP_FROM, "{} are kept", interner.texts.len());
        assert!(interner.texts.contains("default"));
    }
}
