//! Where container runtimes mount network namespaces, and by which path this agent sees one.
//!
//! A runtime names `/run/netns/X` or `/var/run/netns/X`, which are the same on a host, where `/var/run` is a link. In the agent's
//! container there is no such link, and only what is mounted into it. A path counts only if the very namespace is at it.

use std::path::{Path, PathBuf};

use linux::netns::{Netns, NetnsId};
use linux::pods;

/// The directories of containerd, CRI-O, podman and iproute2, and of Docker under minikube.
const MOUNTS: [&str; 4] = ["/var/run/netns", "/run/netns", "/var/run/docker/netns", "/run/docker/netns"];
/// A directory of hosts, and the link to it.
const RUN: (&str, &str) = ("/run", "/var/run");

/// The path by which a namespace is seen here that somebody else sees at `path`; none if it is not seen.
pub(crate) fn seen(netns: NetnsId, path: &Path) -> Option<PathBuf> {
    let is_it = |path: &PathBuf| Netns::open(path).is_ok_and(|seen| seen.id() == netns);
    std::iter::once(path.to_owned()).chain(otherwise(path)).find(is_it).or_else(|| mount(netns))
}

/// A file of a runtime's that is a mount of this namespace: it stays when the processes in there change.
pub(super) fn mount(netns: NetnsId) -> Option<PathBuf> {
    pods::mounted(&MOUNTS.map(PathBuf::from), netns)
}

/// The same path with the link, or without it.
pub(super) fn otherwise(path: &Path) -> Option<PathBuf> {
    let (run, link) = RUN;
    let in_run = |rest: &Path| Path::new(run).join(rest);
    path.strip_prefix(link)
        .map(in_run)
        .or_else(|_| path.strip_prefix(run).map(|rest| Path::new(link).join(rest)))
        .ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_path_is_known_with_the_link_and_without_it() {
        for (path, other) in [
            ("/run/netns/cni-1", Some("/var/run/netns/cni-1")),
            ("/var/run/netns/cni-1", Some("/run/netns/cni-1")),
            ("/var/run/docker/netns/x", Some("/run/docker/netns/x")),
            ("/runner/netns/x", None),
            ("/proc/7/ns/net", None),
        ] {
            assert_eq!(otherwise(Path::new(path)), other.map(PathBuf::from), "{path}");
        }
    }

    #[test]
    fn only_the_very_namespace_counts() {
        let own = Path::new("/proc/self/ns/net");
        let id = Netns::open(own).unwrap().id();
        assert_eq!(seen(id, own), Some(own.to_owned()));
        assert_ne!(seen(id, Path::new("/proc/self/ns/uts")), Some("/proc/self/ns/uts".into()));
        let other = NetnsId { inode: id.inode + 1, ..id };
        assert_eq!(seen(other, own), None);
    }
}
