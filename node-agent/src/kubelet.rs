//! Finds the kubelet of this node and tells capture, so that its health probes reach pods as they are.
//!
//! A kubelet is a process of the host's network namespace whose executable has one of the configured names (k3s and
//! MicroK8s have it inside binaries of other names). It is looked for again when it ends, and every few seconds, for a
//! new one may start beside it. Nobody else of the host is exempt. When the agent is dead, the kubelet that it found stays
//! exempt. The exemption is the kubelet's and not a pod's: it is there before a pod is captured, and when it has been released. A kubelet whose cgroup cannot be told is watched for on the root of the hierarchy, which costs every connection of
//! the machine a little.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use redirect::NodeCapture;

use crate::lookout::Lookout;

/// How often processes are looked through.
const PERIOD: Duration = Duration::from_secs(2);

/// What to look for, and where.
#[derive(Clone, Debug)]
pub(crate) struct Search {
    /// The process table.
    pub(crate) proc: PathBuf,
    /// The host's network namespace.
    pub(crate) netns: PathBuf,
    /// Names of executables.
    pub(crate) names: Vec<String>,
}

/// Keeps capture informed.
pub(crate) struct Watch {
    node: Arc<NodeCapture>,
    search: Search,
    lookout: Arc<Lookout>,
    known: Option<BTreeSet<u32>>,
}

impl Watch {
    /// Nothing is looked for yet.
    pub(crate) fn new(node: Arc<NodeCapture>, search: Search, lookout: Arc<Lookout>) -> Self {
        Self { node, search, lookout, known: None }
    }

    /// Looks once. To be done before the first pod is captured: its probes must not be without their exemption for a moment.
    pub(crate) async fn look(&mut self) {
        let (node, search) = (Arc::clone(&self.node), self.search.clone());
        // Reading a process table of thousands takes some milliseconds.
        let found = self.lookout.look(move || {
            let found = find(&search);
            let cgroups = cgroups(&search.proc, &found);
            node.set_probers(&found, &cgroups).map(|()| found)
        });
        match found.await {
            Ok(Ok(found)) => {
                if self.known.as_ref() != Some(&found) {
                    let names = &self.search.names;
                    tracing::info!(processes = ?found, ?names, "health probes of these processes are exempt");
                    self.known = Some(found);
                }
            }
            Ok(Err(error)) => tracing::warn!(%error, "health probes may be captured"),
            Err(error) => tracing::warn!(%error, "health probes may be captured"),
        }
    }

    /// Looks again and again until the process ends.
    pub(crate) async fn follow(mut self) -> std::io::Result<()> {
        let mut tick = tokio::time::interval(PERIOD);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.look().await;
        }
    }
}

fn find(search: &Search) -> BTreeSet<u32> {
    let Some(host) = identity(&search.netns) else { return BTreeSet::new() };
    let entries = fs::read_dir(&search.proc).into_iter().flatten().flatten();
    let processes =
        entries.filter_map(|entry| Some((entry.file_name().to_str()?.parse().ok()?, entry.path())));
    processes
        .filter(|(_, path)| is_named(path, &search.names) && identity(&path.join("ns/net")) == Some(host))
        .map(|(process, _)| process)
        .collect()
}

/// The cgroups that these processes are in.
fn cgroups(proc: &Path, processes: &BTreeSet<u32>) -> BTreeSet<PathBuf> {
    let of = |process: &u32| {
        let directory = proc.join(process.to_string());
        let root = || {
            let root = linux::cgroup::root().ok()?;
            tracing::debug!(process, root = %root.display(), "the kubelet's cgroup cannot be told");
            Some(root)
        };
        linux::cgroup::of(&directory).or_else(|| directory.exists().then(root).flatten())
    };
    processes.iter().filter_map(of).collect()
}

/// By the executable, which a process cannot choose freely; a deleted one (the kubelet was upgraded) counts as well.
fn is_named(process: &Path, names: &[String]) -> bool {
    let Ok(executable) = fs::read_link(process.join("exe")) else { return false };
    let Some(name) = executable.file_name().and_then(|name| name.to_str()) else { return false };
    let name = name.strip_suffix(" (deleted)").unwrap_or(name);
    names.iter().any(|wanted| wanted == name)
}

/// Device and inode of a namespace file.
fn identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = fs::metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_found_by_its_executable_in_its_namespace_only() {
        let own = std::env::current_exe().unwrap().file_name().unwrap().to_str().unwrap().to_owned();
        let search = |names: &[&str], netns: &str| Search {
            proc: "/proc".into(),
            netns: netns.into(),
            names: names.iter().map(|name| (*name).to_owned()).collect(),
        };
        let here = "/proc/self/ns/net";
        assert!(find(&search(&["kubelet", &own], here)).contains(&std::process::id()));
        assert!(!find(&search(&["kubelet"], here)).contains(&std::process::id()));
        assert!(find(&search(&[&own], "/proc/self/ns/uts")).is_empty());
        assert!(find(&search(&[&own], "/no/such/file")).is_empty());
    }

    #[test]
    fn the_cgroup_of_a_process_is_found_and_that_of_a_dead_one_is_none() {
        let own = BTreeSet::from([std::process::id()]);
        let found = cgroups(Path::new("/proc"), &own);
        assert_eq!(found.len(), 1);
        assert!(found.iter().all(|path| path.starts_with(linux::cgroup::root().unwrap())));
        assert!(cgroups(Path::new("/proc"), &BTreeSet::from([0])).is_empty());
    }
}
