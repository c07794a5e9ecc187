//! Puts what a file says in place of what the mesh is.
//!
//! Invariant: what did not change is not touched, so nobody who compares resources by pointer sees a change
//! where there is none; where nothing changed there is no next snapshot.

use std::collections::HashSet;
use std::sync::Arc;

use mesh::{NamespacedHostname, Snapshot};

use super::MeshFile;

/// The next snapshot, if it differs from the current one. What the file says of the mesh is taken out of it.
pub(super) fn apply(file: &mut MeshFile, current: &Snapshot) -> Option<Snapshot> {
    let mut editor = current.edit();
    let mut changed = false;

    let uids: HashSet<&str> = file.workloads.iter().map(|workload| &*workload.uid).collect();
    for gone in current.workloads().filter(|workload| !uids.contains(&*workload.uid)) {
        changed |= editor.remove_workload(&gone.uid);
    }
    for workload in std::mem::take(&mut file.workloads) {
        if current.workload(&workload.uid).is_none_or(|known| **known != workload) {
            editor.insert_workload(workload);
            changed = true;
        }
    }

    let keys: HashSet<NamespacedHostname> = file.services.iter().map(mesh::Service::key).collect();
    for gone in current.services().map(|service| service.key()).filter(|key| !keys.contains(key)) {
        changed |= editor.remove_service(&gone);
    }
    for service in std::mem::take(&mut file.services) {
        if current.service(&service.key()).is_none_or(|known| **known != service) {
            editor.insert_service(service);
            changed = true;
        }
    }

    let keys: HashSet<String> = file.policies.iter().map(mesh::Policy::key).collect();
    for gone in current.policies().map(|policy| policy.key()).filter(|key| !keys.contains(key)) {
        changed |= editor.remove_policy(&gone);
    }
    for policy in std::mem::take(&mut file.policies) {
        let known = current.policy(&policy.key()).map(Arc::as_ref);
        if known != Some(&policy) {
            editor.insert_policy(policy);
            changed = true;
        }
    }
    changed.then(|| editor.finish())
}
