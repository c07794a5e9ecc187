//! Whom a word of the command line means: a workload, by its pod's name, its uid, or an address of it.

use std::net::IpAddr;
use std::sync::Arc;

use mesh::{Place, Snapshot, Workload};

/// The workload that is meant, or what to say instead.
pub(super) fn workload(snapshot: &Snapshot, network: &str, word: &str) -> Result<Arc<Workload>, String> {
    if let Ok(ip) = word.parse::<IpAddr>() {
        let found = snapshot.workload_by_address(Place::new(network, ip.to_canonical()));
        return found.cloned().ok_or_else(|| format!("no workload of the mesh has the address {ip}"));
    }
    if let Some(found) = snapshot.workload(word) {
        return Ok(Arc::clone(found));
    }
    if let Some((namespace, name)) = word.split_once('/') {
        let found = snapshot.workload_of_pod(namespace, name);
        return found.cloned().ok_or_else(|| format!("the mesh knows no pod {word}"));
    }
    let mut named = snapshot.workloads().filter(|workload| *workload.name == *word);
    match (named.next(), named.next()) {
        (None, _) => Err(format!("the mesh knows no pod {word}; name it NAMESPACE/POD, or by its address")),
        (Some(found), None) => Ok(Arc::clone(found)),
        (Some(one), Some(other)) => Err(format!(
            "several pods are called {word}, such as {} and {}; name the one that is meant NAMESPACE/POD",
            pod_of(one),
            pod_of(other)
        )),
    }
}

/// `namespace/name` of a workload's pod.
pub(super) fn pod_of(workload: &Workload) -> String {
    format!("{}/{}", workload.namespace, workload.name)
}

/// The address of a workload that is of the same family as `like`, if it has one; else any.
pub(super) fn address(workload: &Workload, like: Option<IpAddr>) -> Option<IpAddr> {
    let fits = |ip: &&IpAddr| like.is_none_or(|like| like.is_ipv4() == ip.is_ipv4());
    workload.addresses.iter().find(fits).or_else(|| workload.addresses.first()).copied()
}
