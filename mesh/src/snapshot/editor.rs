//! Makes the next snapshot.
//!
//! Invariant: after every call all indexes agree with the resources. An insertion first takes out what the
//! resource it replaces had put in.

use std::borrow::Cow;
use std::hash::Hash;
use std::sync::Arc;

use imbl::{HashMap, OrdMap};

use super::claims::{Claimant, Claims};
use super::{Endpoint, Snapshot, folded};
use crate::address::NamespacedHostname;
use crate::policy::{Policy, Scope};
use crate::service::Service;
use crate::workload::{NetworkMode, Workload};

/// A snapshot in the making. What it began from is not touched.
#[derive(Debug)]
pub struct SnapshotEditor {
    next: Snapshot,
}

impl SnapshotEditor {
    pub(super) fn new(next: Snapshot) -> Self {
        Self { next }
    }

    /// Adds a workload, or replaces the one of its uid.
    pub fn insert_workload(&mut self, workload: Workload) {
        self.remove_workload(&Arc::clone(&workload.uid));
        let workload = Arc::new(workload);
        let next = &mut self.next;
        if workload.network_mode == NetworkMode::Standard {
            for address in workload.network_addresses() {
                claim(&mut next.by_address, address, &workload);
            }
        }
        claim(&mut next.by_pod, pod_key(&workload), &workload);
        if !workload.hostname.is_empty() {
            claim(&mut next.by_workload_hostname, host_key(&workload.hostname), &workload);
        }
        for (service, ports) in &workload.services {
            let endpoint = Endpoint { workload: Arc::clone(&workload), ports: ports.clone() };
            next.endpoints
                .entry(service.clone())
                .or_default()
                .insert(Arc::clone(&workload.uid), Arc::new(endpoint));
        }
        next.workloads.insert(Arc::clone(&workload.uid), workload);
    }

    /// Removes a workload, and says whether it was there.
    pub fn remove_workload(&mut self, uid: &str) -> bool {
        let next = &mut self.next;
        let Some(workload) = next.workloads.remove(uid) else { return false };
        if workload.network_mode == NetworkMode::Standard {
            for address in workload.network_addresses() {
                disclaim(&mut next.by_address, &address, &workload);
            }
        }
        disclaim(&mut next.by_pod, &pod_key(&workload), &workload);
        if !workload.hostname.is_empty() {
            disclaim(&mut next.by_workload_hostname, &host_key(&workload.hostname), &workload);
        }
        for service in workload.services.keys() {
            if let Some(endpoints) = next.endpoints.get_mut(service) {
                endpoints.remove(uid);
                if endpoints.is_empty() {
                    next.endpoints.remove(service);
                }
            }
        }
        true
    }

    /// Adds a service, or replaces the one of its name. Endpoints that waited for it are served from now on.
    pub fn insert_service(&mut self, service: Service) {
        let key = service.key();
        self.remove_service(&key);
        let service = Arc::new(service);
        let next = &mut self.next;
        claim(&mut next.by_hostname, host_key(&service.hostname), &service);
        for vip in &service.vips {
            claim(&mut next.by_vip, vip.clone(), &service);
        }
        if !service.cidr_vips.is_empty() {
            Arc::make_mut(&mut next.cidr_vips).insert(&service);
        }
        next.services.insert(key, service);
    }

    /// Removes a service, and says whether it was there. Its endpoints are staged again.
    pub fn remove_service(&mut self, key: &NamespacedHostname) -> bool {
        let next = &mut self.next;
        let Some(service) = next.services.remove(key) else { return false };
        disclaim(&mut next.by_hostname, &host_key(&service.hostname), &service);
        for vip in &service.vips {
            disclaim(&mut next.by_vip, vip, &service);
        }
        if !service.cidr_vips.is_empty() {
            Arc::make_mut(&mut next.cidr_vips).remove(&service);
        }
        true
    }

    /// Adds a policy, or replaces the one of its key.
    pub fn insert_policy(&mut self, policy: Policy) {
        let key: Arc<str> = policy.key().into();
        self.remove_policy(&key);
        let policy = Arc::new(policy);
        let next = &mut self.next;
        match policy.scope {
            Scope::Global => {
                next.global_policies.insert(Arc::clone(&key), Arc::clone(&policy));
            }
            Scope::Namespace => {
                let of_namespace: &mut OrdMap<_, _> =
                    next.namespace_policies.entry(Arc::clone(&policy.namespace)).or_default();
                of_namespace.insert(Arc::clone(&key), Arc::clone(&policy));
            }
            Scope::WorkloadSelector => {}
        }
        next.policies.insert(key, policy);
    }

    /// Removes the policy of a key (`namespace/name`), and says whether it was there.
    pub fn remove_policy(&mut self, key: &str) -> bool {
        let next = &mut self.next;
        let Some(policy) = next.policies.remove(key) else { return false };
        match policy.scope {
            Scope::Global => {
                next.global_policies.remove(key);
            }
            Scope::Namespace => {
                if let Some(of_namespace) = next.namespace_policies.get_mut(&policy.namespace) {
                    of_namespace.remove(key);
                    if of_namespace.is_empty() {
                        next.namespace_policies.remove(&policy.namespace);
                    }
                }
            }
            Scope::WorkloadSelector => {}
        }
        true
    }

    /// The next snapshot.
    pub fn finish(self) -> Snapshot {
        self.next
    }
}

fn pod_key(workload: &Workload) -> (Arc<str>, Arc<str>) {
    (Arc::clone(&workload.namespace), Arc::clone(&workload.name))
}

fn host_key(hostname: &Arc<str>) -> Arc<str> {
    match folded(hostname) {
        Cow::Borrowed(_) => Arc::clone(hostname),
        Cow::Owned(folded) => folded.into(),
    }
}

fn claim<K: Hash + Eq + Clone, T: Claimant>(map: &mut HashMap<K, Claims<T>>, key: K, claimant: &Arc<T>) {
    map.entry(key).or_default().insert(Arc::clone(claimant));
}

fn disclaim<K: Hash + Eq + Clone, T: Claimant>(map: &mut HashMap<K, Claims<T>>, key: &K, claimant: &T) {
    if let Some(claims) = map.get_mut(key) {
        claims.remove(claimant);
        if claims.is_empty() {
            map.remove(key);
        }
    }
}
