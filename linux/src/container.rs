//! Running containers, found the way the kernel shows them: by the cgroup paths of their processes.
//!
//! A container runtime puts the container's id into the name of its cgroup, whatever the driver (`cri-containerd-ID.scope`,
//! `/kubepods/podUID/ID`, `crio-ID.scope`); so the first process whose cgroup path holds the id belongs to it.

use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

/// Shortest id that is looked for: fewer digits could match another container.
const MIN_ID: usize = 12;

/// Why a container was not found.
#[derive(Debug, Error)]
pub enum ContainerError {
    /// The id is too short or has other characters than an id has.
    #[error("{0:?} is not a container id; give at least {MIN_ID} of its characters")]
    BadId(String),
    /// No process belongs to it.
    #[error("no running process belongs to container {0}; is it still running on this node?")]
    NotFound(String),
    /// The process table cannot be read.
    #[error("{path}: {source}")]
    Proc {
        /// Path of the process table.
        path: PathBuf,
        /// Cause.
        source: io::Error,
    },
}

/// The network namespace file of a container, found in the process table at `proc` (`/proc`, or the host's).
pub fn netns_of(proc: &Path, id: &str) -> Result<PathBuf, ContainerError> {
    if id.len() < MIN_ID || !id.bytes().all(|b| b.is_ascii_alphanumeric()) {
        return Err(ContainerError::BadId(id.to_owned()));
    }
    let error = |source| ContainerError::Proc { path: proc.to_owned(), source };
    for entry in std::fs::read_dir(proc).map_err(error)? {
        let path = entry.map_err(error)?.path();
        let is_process =
            path.file_name().and_then(|n| n.to_str()).is_some_and(|n| n.bytes().all(|b| b.is_ascii_digit()));
        if !is_process {
            continue;
        }
        // A process that ended meanwhile is no error.
        let Ok(cgroups) = std::fs::read_to_string(path.join("cgroup")) else { continue };
        if belongs(&cgroups, id) {
            return Ok(path.join("ns/net"));
        }
    }
    Err(ContainerError::NotFound(id.to_owned()))
}

fn belongs(cgroups: &str, id: &str) -> bool {
    cgroups.lines().filter_map(|line| line.splitn(3, ':').nth(2)).any(|path| {
        path.split('/')
            .any(|part| part.split(['-', ':', '.']).any(|word| word.len() >= MIN_ID && word.starts_with(id)))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: &str = "3f4c1d2e5a6b7c8d9e0f3f4c1d2e5a6b7c8d9e0f3f4c1d2e5a6b7c8d9e0f0123";

    #[test]
    fn every_driver_and_runtime_is_understood() {
        let paths = [
            format!(
                "0::/kubepods.slice/kubepods-besteffort.slice/kubepods-besteffort-podab_cd.slice/cri-containerd-{ID}.scope"
            ),
            format!("12:pids:/kubepods/burstable/pod1234/{ID}"),
            format!("0::/kubepods.slice/kubepods-podx.slice/crio-{ID}.scope/container"),
            format!(
                "1:name=systemd:/system.slice/containerd.service/kubepods-pod1.slice:cri-containerd:{ID}"
            ),
        ];
        for path in &paths {
            assert!(belongs(path, ID), "{path}");
            assert!(belongs(path, &ID[..12]), "{path}");
        }
        assert!(!belongs("0::/user.slice/session-3.scope", ID));
        assert!(!belongs(&format!("0::/x/{ID}"), "4c1d2e5a6b7c"));
    }

    #[test]
    fn bad_and_unknown_ids_are_told() {
        assert!(matches!(netns_of(Path::new("/proc"), "abc"), Err(ContainerError::BadId(_))));
        assert!(matches!(netns_of(Path::new("/proc"), "../../../../etc"), Err(ContainerError::BadId(_))));
        assert!(matches!(netns_of(Path::new("/proc"), ID), Err(ContainerError::NotFound(_))));
    }
}
