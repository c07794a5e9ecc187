//! Makes the next snapshot.
//!
//! Invariant: after every call all indexes agree with the resources. An insertion first takes out what the
//! resource it replaces had put in.

use std::sync::{Arc, MutexGuard, PoisonError};

use imbl::{OrdMap, OrdSet};

use super::Snapshot;
use super::entries::{ByHostname, ByName, ByPod, ByUid, Folded, Member, Members, name};
use crate::address::NamespacedHostname;
use crate::interner::Interner;
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
    pub fn insert_workload(&mut self, mut workload: Workload) {
        self.remove_workload(&workload.uid);
        self.interner().workload(&mut workload);
        let workload = Arc::new(workload);
        let next = &mut self.next;
        if workload.network_mode == NetworkMode::Standard {
            for address in &workload.addresses {
                next.by_address.insert(&workload.network, *address, true, &workload);
            }
        }
        next.by_pod.insert(ByPod(Arc::clone(&workload)));
        if !workload.hostname.is_empty() {
            next.by_workload_hostname.insert(ByHostname(Arc::clone(&workload)));
        }
        for service in workload.services.keys() {
            let of = |members: &Members| members.service == *service;
            let member = Member(Arc::clone(&workload));
            match next.endpoints.get_mut(name(service), of) {
                Some(members) => {
                    members.workloads.insert(member);
                }
                None => {
                    let workloads = OrdSet::unit(member);
                    next.endpoints.insert(Members { service: service.clone(), workloads });
                }
            }
        }
        next.workloads.insert(ByUid(workload));
    }

    /// Removes a workload, and says whether it was there.
    pub fn remove_workload(&mut self, uid: &str) -> bool {
        let next = &mut self.next;
        let Some(ByUid(workload)) = next.workloads.remove(uid, |entry| *entry.0.uid == *uid) else {
            return false;
        };
        let workload = &workload;
        if workload.network_mode == NetworkMode::Standard {
            for address in &workload.addresses {
                next.by_address.remove(&workload.network, *address, workload);
            }
        }
        let pod = (&*workload.namespace, &*workload.name);
        next.by_pod.remove(pod, |entry| Arc::ptr_eq(&entry.0, workload));
        if !workload.hostname.is_empty() {
            let host = Folded(&workload.hostname);
            next.by_workload_hostname.remove(host, |entry| Arc::ptr_eq(&entry.0, workload));
        }
        for service in workload.services.keys() {
            let of = |members: &Members| members.service == *service;
            if let Some(members) = next.endpoints.get_mut(name(service), of) {
                members.workloads.remove(uid);
                if members.workloads.is_empty() {
                    next.endpoints.remove(name(service), of);
                }
            }
        }
        true
    }

    /// Adds a service, or replaces the one of its name. Endpoints that waited for it are served from now on.
    pub fn insert_service(&mut self, mut service: Service) {
        self.interner().service(&mut service);
        let key = service.key();
        self.remove_service(&key);
        let service = Arc::new(service);
        let next = &mut self.next;
        next.by_hostname.insert(ByHostname(Arc::clone(&service)));
        let is_public = service.is_public();
        for vip in &service.vips {
            next.by_vip.insert(&vip.network, vip.address, is_public, &service);
        }
        next.cidr_vips.insert(&service);
        next.services.insert(ByName(service));
    }

    /// Removes a service, and says whether it was there. Its endpoints are staged again.
    pub fn remove_service(&mut self, key: &NamespacedHostname) -> bool {
        let next = &mut self.next;
        let Some(ByName(service)) = next.services.remove(name(key), |entry| entry.0.key() == *key) else {
            return false;
        };
        let service = &service;
        next.by_hostname.remove(Folded(&service.hostname), |entry| Arc::ptr_eq(&entry.0, service));
        for vip in &service.vips {
            next.by_vip.remove(&vip.network, vip.address, service);
        }
        next.cidr_vips.remove(service);
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

    /// What has been made so far.
    pub fn snapshot(&self) -> &Snapshot {
        &self.next
    }

    /// The next snapshot.
    pub fn finish(self) -> Snapshot {
        self.next
    }

    fn interner(&self) -> MutexGuard<'_, Interner> {
        self.next.interner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
