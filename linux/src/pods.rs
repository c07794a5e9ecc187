//! Network namespaces of pods that run already, found the way the kernel shows them: by the cgroup paths of their processes.
//!
//! The kubelet makes a cgroup for each pod and puts the pod's UID into its name, whatever the hierarchy, the driver and the runtime:
//! `/kubepods/burstable/podUID/…` (cgroupfs), `/kubepods.slice/…/kubepods-burstable-podUID.slice/…` with underscores (systemd). A pod whose
//! processes are in several namespaces (a container runtime within it, say) has several candidates; who asks knows the pod's addresses.

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use crate::netns::NetnsId;

/// A network namespace in which a pod has processes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Candidate {
    /// The namespace.
    pub netns: NetnsId,
    /// A path to it, by the oldest of those processes.
    pub path: PathBuf,
}

/// The candidates of every pod with processes in the process table at `proc` (`/proc`, or the host's), by UID. The namespace of process 1,
/// which is the host's, is no pod's own. Processes that end meanwhile are left out.
///
/// # Errors
/// When the table cannot be read.
pub fn namespaces(proc: &Path) -> io::Result<HashMap<String, Vec<Candidate>>> {
    let host = identity(&proc.join("1/ns/net"));
    let mut processes: Vec<(u32, PathBuf)> = std::fs::read_dir(proc)?
        .flatten()
        .filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())))
        .collect();
    processes.sort_unstable();
    let mut pods: HashMap<String, Vec<Candidate>> = HashMap::new();
    for (_, process) in processes {
        let Ok(cgroups) = std::fs::read_to_string(process.join("cgroup")) else { continue };
        let Some(uid) = uid(&cgroups) else { continue };
        let path = process.join("ns/net");
        let Some(netns) = identity(&path).filter(|netns| Some(*netns) != host) else { continue };
        let candidates = pods.entry(uid).or_default();
        if candidates.iter().all(|known| known.netns != netns) {
            candidates.push(Candidate { netns, path });
        }
    }
    Ok(pods)
}

/// A file in one of these directories that is a mount of a namespace: it stays when the processes in there change.
pub fn mounted(directories: &[PathBuf], netns: NetnsId) -> Option<PathBuf> {
    let entries = directories.iter().filter_map(|directory| std::fs::read_dir(directory).ok()).flatten();
    entries.flatten().map(|entry| entry.path()).find(|path| identity(path) == Some(netns))
}

/// Device and inode of a namespace file.
fn identity(path: &Path) -> Option<NetnsId> {
    let metadata = std::fs::metadata(path).ok()?;
    Some(NetnsId { device: metadata.dev(), inode: metadata.ino() })
}

/// The UID of the pod that a process belongs to, from its `/proc/PID/cgroup`.
fn uid(cgroups: &str) -> Option<String> {
    let paths = cgroups.lines().filter_map(|line| line.splitn(3, ':').nth(2));
    // containerd's older form names the slice and the container in one part, with colons between.
    paths.flat_map(|path| path.split(['/', ':'])).find_map(uid_in)
}

/// The UID in one part of a cgroup's path.
fn uid_in(part: &str) -> Option<String> {
    let name = part.strip_suffix(".slice").unwrap_or(part);
    let written = match name.strip_prefix("pod") {
        Some(written) => written,
        None if name.starts_with("kubepods-") => name.rsplit_once("-pod")?.1,
        None => return None,
    };
    let uid = written.replace('_', "-");
    // That of a pod of the kubelet's own (a static pod) is a hash without dashes.
    let is_uid = matches!(uid.len(), 32 | 36) && uid.bytes().all(|b| b.is_ascii_hexdigit() || b == b'-');
    is_uid.then_some(uid)
}

#[cfg(test)]
mod tests {
    use super::*;

    const UID: &str = "8f1c1b0a-3d0e-4f43-9a44-0b9d2f6f7a11";
    const ID: &str = "3f4c1d2e5a6b7c8d9e0f3f4c1d2e5a6b7c8d9e0f3f4c1d2e5a6b7c8d9e0f0123";

    #[test]
    fn every_hierarchy_driver_and_runtime_is_understood() {
        let under = UID.replace('-', "_");
        let paths = [
            format!("0::/kubepods/burstable/pod{UID}/{ID}"),
            format!("0::/kubepods/pod{UID}/crio-{ID}"),
            format!(
                "0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-pod{under}.slice/cri-containerd-{ID}.scope"
            ),
            format!("0::/kubepods.slice/kubepods-pod{under}.slice/crio-{ID}.scope/container"),
            format!(
                "0::/../../kubepods-burstable.slice/kubepods-burstable-pod{under}.slice/cri-containerd-{ID}.scope"
            ),
            format!(
                "13:memory:/kubepods/besteffort/pod{UID}/{ID}\n1:name=systemd:/kubepods/besteffort/pod{UID}/{ID}\n0::/"
            ),
            format!(
                "5:pids:/system.slice/containerd.service/kubepods-burstable-pod{under}.slice:cri-containerd:{ID}"
            ),
            format!("0::/kubelet/kubepods/burstable/pod{UID}/{ID}"),
        ];
        for path in &paths {
            assert_eq!(uid(path).as_deref(), Some(UID), "{path}");
        }
        let hash = "d41d8cd98f00b204e9800998ecf8427e";
        assert_eq!(uid(&format!("0::/kubepods/burstable/pod{hash}/{ID}")).as_deref(), Some(hash));
    }

    #[test]
    fn what_is_no_pod_is_none() {
        for path in [
            "0::/user.slice/session-3.scope",
            "0::/system.slice/podman.service",
            "0::/pods/podcast",
            "0::/machine.slice/libpod-3f4c1d2e5a6b7c8d9e0f3f4c1d2e5a6b.scope",
            "0::/kubepods.slice/kubepods-burstable.slice",
            "",
        ] {
            assert_eq!(uid(path), None, "{path}");
        }
    }

    #[test]
    fn a_namespace_is_found_at_its_mount_and_nowhere_else() {
        let own = identity(Path::new("/proc/self/ns/net")).unwrap();
        assert_eq!(mounted(&["/proc/self/ns".into()], own).unwrap(), Path::new("/proc/self/ns/net"));
        assert_eq!(mounted(&["/no/such".into(), "/etc".into()], own), None);
    }
}
