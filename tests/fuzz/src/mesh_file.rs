//! The mesh as a file.

use std::collections::HashSet;

use control::file::MeshFile;
use control::fuzzing::{self, Readings};
use mesh::Identity;

/// However a file is read, it is the same; and what it says obeys what the mesh takes for granted.
///
/// # Panics
/// When something does not hold.
pub fn mesh_file(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Readings { whole, taken, pieces } = fuzzing::mesh_file(text);
    assert_eq!(taken, whole, "a quick reader takes no other meaning");
    // What is wrong in pieces is told by whoever reads it whole.
    if let Some(Ok(pieces)) = pieces {
        assert_eq!(whole.as_ref(), Ok(&pieces), "a file in pieces says what it says");
    }
    match whole {
        Ok(file) => check(&file),
        Err(error) => {
            let lines = u64::try_from(text.split(['\n', '\r']).count()).unwrap_or(u64::MAX);
            assert!(error.line <= lines + 1, "{error}, of {lines}");
            assert!(!error.message.is_empty());
        }
    }
}

fn check(file: &MeshFile) {
    let uids: HashSet<_> = file.workloads.iter().map(|workload| &workload.uid).collect();
    assert_eq!(uids.len(), file.workloads.len(), "a workload is there once");
    for workload in &file.workloads {
        let identity = workload.identity();
        assert_eq!(identity.to_string().parse::<Identity>(), Ok(identity));
        assert!(workload.addresses.iter().all(|address| *address == address.to_canonical()));
        assert!(workload.services.iter().all(|(_, ports)| ports.keys().all(|port| *port != 0)));
        let gateways = workload.waypoint.iter().chain(&workload.network_gateway);
        assert!(gateways.into_iter().all(|gateway| gateway.hbone_mtls_port != 0));
    }
    let keys: HashSet<_> = file.services.iter().map(mesh::Service::key).collect();
    assert_eq!(keys.len(), file.services.len(), "a service is there once");
    let keys: HashSet<_> = file.policies.iter().map(mesh::Policy::key).collect();
    assert_eq!(keys.len(), file.policies.len(), "a policy is there once");
    let pods: HashSet<_> = file.enroll.iter().map(|pod| (&pod.namespace, &pod.name)).collect();
    assert_eq!(pods.len(), file.enroll.len(), "a pod is there once");
}
