//! Where a running pod is: at the path that its entry names, in the namespace of its container, or where its processes are.
//!
//! A pod that Kubernetes knows is found by its UID in the cgroups of its processes, and counts as found only in a namespace that has one
//! of its addresses: processes of one pod may be in several.

use std::collections::HashMap;
use std::net::IpAddr;
use std::path::Path;
use std::sync::Arc;

use linux::netns::Netns;
use linux::pods::{self, Candidate};
use linux::{container, netlink};

use super::wishes::Wanted;
use super::{EnrollError, Enroller, Location, blocking, places};

/// The candidates of every pod, by UID.
pub(super) type Candidates = HashMap<String, Vec<Candidate>>;

impl Enroller {
    /// Looks through the node's processes once, for however many pods.
    pub(super) async fn candidates(&self) -> Result<Arc<Candidates>, EnrollError> {
        let proc = self.proc.clone();
        let found = blocking(move || pods::namespaces(&proc)).await?;
        let error = |source| EnrollError::Processes { path: self.proc.clone(), source };
        Ok(Arc::new(found.map_err(error)?))
    }

    /// Where a pod is.
    pub(super) async fn locate(
        &self,
        wanted: &Wanted,
        candidates: &Arc<Candidates>,
    ) -> Result<Location, EnrollError> {
        let (proc, wanted, candidates) = (self.proc.clone(), wanted.clone(), Arc::clone(candidates));
        blocking(move || find(&proc, &wanted, &candidates)).await?
    }
}

fn find(proc: &Path, wanted: &Wanted, candidates: &Candidates) -> Result<Location, EnrollError> {
    let path = match (&wanted.entry.netns, &wanted.entry.container, &wanted.uid) {
        (Some(path), _, _) => path.clone(),
        (None, Some(id), _) => container::netns_of(proc, id)?,
        (None, None, Some(uid)) => return find_pod(uid, &wanted.ips, candidates),
        (None, None, None) => return Err(EnrollError::NoLocation),
    };
    Ok(Location::found(Netns::open(&path)?, path))
}

fn find_pod(uid: &str, ips: &[IpAddr], candidates: &Candidates) -> Result<Location, EnrollError> {
    let of_pod = candidates.get(uid).map(Vec::as_slice).unwrap_or_default();
    for Candidate { netns: id, path } in of_pod {
        // A process that ended meanwhile is no error.
        let Ok(netns) = Netns::open(path) else { continue };
        if netns.id() != *id {
            continue;
        }
        let found = netlink::addresses(&netns).map_err(EnrollError::Addresses)?;
        if let Some(ip) = ips.iter().find(|ip| found.contains(ip)) {
            let path = places::mount(*id).unwrap_or_else(|| path.clone());
            return Ok(Location { ips: vec![*ip], ..Location::found(netns, path) });
        }
    }
    Err(EnrollError::NotHere { uid: uid.to_owned(), namespaces: of_pod.len(), ips: ips.to_vec() })
}
