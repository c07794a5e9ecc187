//! An immutable picture of the mesh, and how the next one is made from it.
//!
//! Invariants: every index agrees with the resources; cloning costs nothing worth counting; an edit costs in
//! proportion to what it changes, for all maps share structure. What many resources say is kept once. Endpoints of a service that has not come yet are staged:
//! they are indexed by the service's name and served once it is there.

mod addresses;
mod claims;
mod editor;
mod entries;
mod slots;
mod table;
mod vips;

#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::{Arc, Mutex};

use imbl::{HashMap, OrdMap};

use self::addresses::Addresses;
use self::claims::{Claimant, in_order, preferred};
use self::entries::{ByHostname, ByName, ByPod, ByUid, Folded, Member, Members, name};
use self::table::Table;
use self::vips::CidrVips;
use crate::address::{NamespacedHostname, Place};
use crate::interner::Interner;
use crate::policy::Policy;
use crate::route::target_port;
use crate::service::Service;
use crate::workload::{PortMap, Workload};

pub use self::editor::SnapshotEditor;

/// A workload in its part as an endpoint of one service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Endpoint<'a> {
    /// The workload.
    pub workload: &'a Arc<Workload>,
    /// Service port to the workload's port. Target 0: the same port.
    pub ports: &'a PortMap,
}

impl Endpoint<'_> {
    /// The workload's port for a port of the service it stands for; none if it does not serve that.
    pub fn target_port(&self, service: &Service, port: u16) -> Option<u16> {
        target_port(&service.ports, self.ports, port)
    }
}

/// An immutable picture of the mesh. Cheap to clone.
#[derive(Clone, Default)]
pub struct Snapshot {
    workloads: Table<ByUid>,
    by_address: Addresses<Workload>,
    by_pod: Table<ByPod>,
    by_workload_hostname: Table<ByHostname<Workload>>,
    services: Table<ByName>,
    by_vip: Addresses<Service>,
    by_hostname: Table<ByHostname<Service>>,
    cidr_vips: CidrVips,
    endpoints: Table<Members>,
    policies: HashMap<Arc<str>, Arc<Policy>>,
    global_policies: OrdMap<Arc<str>, Arc<Policy>>,
    namespace_policies: HashMap<Arc<str>, OrdMap<Arc<str>, Arc<Policy>>>,
    /// Of all snapshots that descend from one. Editors alone use it.
    interner: Arc<Mutex<Interner>>,
}

impl Snapshot {
    /// The workload of this uid.
    pub fn workload(&self, uid: &str) -> Option<&Arc<Workload>> {
        self.workloads.get(uid, |entry| *entry.0.uid == *uid).map(|entry| &entry.0)
    }

    /// The workload that owns an address. Where several do: a pod before others, then one that speaks HBONE.
    /// Workloads on their node's network are never found by address.
    pub fn workload_by_address<'k>(&self, address: impl Into<Place<'k>>) -> Option<&Arc<Workload>> {
        preferred(self.by_address.matching(address.into()).map(|found| found.of))
    }

    /// The workload of a pod. Where clusters share names, any of them: see [`Self::workloads_of_pod`].
    pub fn workload_of_pod(&self, namespace: &str, name: &str) -> Option<&Arc<Workload>> {
        self.workloads_of_pod(namespace, name).next()
    }

    /// Every workload of this namespace and name, pods first: one for each cluster that has such a pod.
    pub fn workloads_of_pod(&self, namespace: &str, name: &str) -> impl Iterator<Item = &Arc<Workload>> {
        let same = |entry: &ByPod| *entry.0.namespace == *namespace && *entry.0.name == *name;
        in_order(self.by_pod.matching((namespace, name), same).map(|entry| &entry.0))
    }

    /// The service of this name.
    pub fn service(&self, key: &NamespacedHostname) -> Option<&Arc<Service>> {
        self.services.get(name(key), |entry| is_named(&entry.0, key)).map(|entry| &entry.0)
    }

    /// Every service of this hostname, canonical ones first. Upper and lower case are the same (RFC 4343); a service of
    /// many hosts is found by its pattern alone, such as `*.example.com`.
    pub fn services_by_hostname(&self, hostname: &str) -> impl Iterator<Item = &Arc<Service>> {
        let host = Folded(hostname);
        in_order(self.by_hostname.matching(host, |entry| Folded(&entry.0.hostname) == host).map(|it| &it.0))
    }

    /// The service that a client of a namespace means by a hostname: one of its own namespace before others, a canonical
    /// one before others.
    pub fn service_by_hostname(&self, hostname: &str, client_namespace: &str) -> Option<&Arc<Service>> {
        self.services_by_hostname(hostname)
            .filter(|service| service.visible_to(client_namespace))
            .min_by_key(|service| (*service.namespace != *client_namespace, !service.canonical))
    }

    /// Every workload of this hostname, pods first. Upper and lower case are the same.
    pub fn workloads_by_hostname(&self, hostname: &str) -> impl Iterator<Item = &Arc<Workload>> {
        let host = Folded(hostname);
        let found = self.by_workload_hostname.matching(host, |entry| Folded(&entry.0.hostname) == host);
        in_order(found.map(|entry| &entry.0))
    }

    /// The service that a client of a namespace means by an address. An exact virtual address comes before a
    /// range; the client's own namespace before others, a longer range before a shorter, a canonical service
    /// before others.
    pub fn service_by_vip<'k>(
        &self,
        address: impl Into<Place<'k>>,
        client_namespace: &str,
    ) -> Option<&Arc<Service>> {
        let address = address.into();
        let exact = self.by_vip.matching(address);
        exact
            .filter(|found| found.is_visible_to(client_namespace))
            .map(|found| found.of)
            .min_by(|one, other| {
                let foreign = |service: &Service| *service.namespace != *client_namespace;
                foreign(one).cmp(&foreign(other)).then_with(|| one.rank().cmp(&other.rank()))
            })
            .or_else(|| self.cidr_vips.find(address, client_namespace))
    }

    /// The endpoints of a service, in the order of their workloads' uids.
    pub fn endpoints<'a>(&'a self, key: &NamespacedHostname) -> impl Iterator<Item = Endpoint<'a>> + use<'a> {
        let members = self.endpoints.get(name(key), |entry| entry.service == *key);
        members.into_iter().flat_map(|members| {
            members.workloads.iter().filter_map(|Member(workload)| {
                Some(Endpoint { workload, ports: workload.services.get(&members.service)? })
            })
        })
    }

    /// The policy of this key, `namespace/name`.
    pub fn policy(&self, key: &str) -> Option<&Arc<Policy>> {
        self.policies.get(key)
    }

    /// The policies that apply to every workload of a namespace: its own, then the global ones.
    pub fn policies_for_namespace(&self, namespace: &str) -> impl Iterator<Item = (&Arc<str>, &Arc<Policy>)> {
        self.namespace_policies
            .get(namespace)
            .into_iter()
            .flat_map(OrdMap::iter)
            .chain(self.global_policies.iter())
    }

    /// All workloads, in no order.
    pub fn workloads(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.workloads.iter().map(|entry| &entry.0)
    }

    /// All services, in no order.
    pub fn services(&self) -> impl Iterator<Item = &Arc<Service>> {
        self.services.iter().map(|entry| &entry.0)
    }

    /// All policies, in no order.
    pub fn policies(&self) -> impl Iterator<Item = &Arc<Policy>> {
        self.policies.values()
    }

    /// The names of services that workloads serve but that have not come, with the endpoints that wait.
    pub fn staged(&self) -> impl Iterator<Item = (&NamespacedHostname, usize)> {
        self.endpoints
            .iter()
            .filter(|members| self.service(&members.service).is_none())
            .map(|members| (&members.service, members.workloads.len()))
    }

    /// Begins the next snapshot.
    pub fn edit(&self) -> SnapshotEditor {
        SnapshotEditor::new(self.clone())
    }
}

fn is_named(service: &Service, key: &NamespacedHostname) -> bool {
    service.namespace == key.namespace && service.hostname == key.hostname
}

impl fmt::Debug for Snapshot {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Snapshot")
            .field("workloads", &self.workloads.len())
            .field("services", &self.services.len())
            .field("policies", &self.policies.len())
            .finish_non_exhaustive()
    }
}
