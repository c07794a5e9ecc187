//! What a container runtime leaves of a run whose test did not come to its end: processes, cgroups, mounts.
//!
//! Invariant: the runtime keeps its files below the run's directory and its containers in the run's cgroup, so that all is found
//! by the run's id; a cgroup that has to be elsewhere is written down in the run's directory. Failures do not stop anything; what is left is swept by the next run.

use std::fs::{self, File};
use std::io::Write as _;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context as _, Result};
use linux::mounts;
use nix::mount::{MntFlags, umount2};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use crate::run::Run;
use crate::wait::eventually;

/// A process takes a moment to die.
const DEATH_LIMIT: Duration = Duration::from_secs(10);
/// The list of cgroups that are elsewhere, in a run's directory.
const ELSEWHERE: &str = "cgroups";

/// The cgroup of a run's containers, below every hierarchy's root.
pub fn cgroup_of(id: &str) -> String {
    format!("culvert-{id}")
}

/// Writes down a cgroup that is none of the run's by its place, so that it goes with the run.
///
/// # Errors
/// If the list cannot be written to.
pub fn write_down(run: &Run, cgroup: &Path) -> Result<()> {
    let path = run.dir().join(ELSEWHERE);
    let list = File::options().create(true).append(true).open(&path);
    let written = list.and_then(|mut list| writeln!(list, "{}", cgroup.display()));
    written.with_context(|| path.display().to_string())
}

/// Ends the processes of a run's containers, removes their cgroups, and unmounts what lies below the run's directories.
pub(crate) fn teardown(id: &str, files: &Path, pins: &Path) {
    let cgroup = cgroup_of(id);
    let gone = || {
        let left = processes(&cgroup);
        for pid in &left {
            let _ = kill(Pid::from_raw(*pid), Signal::SIGKILL);
        }
        left.is_empty().then_some(())
    };
    let _ = eventually("the containers' processes to be gone", DEATH_LIMIT, gone);
    let mounts = mounts::list().unwrap_or_default();
    // What was mounted last lies on top.
    let is_ours = |path: &Path| path.starts_with(files) || path.starts_with(pins);
    for mount in mounts.iter().rev().filter(|mount| is_ours(&mount.path)) {
        let _ = umount2(&mount.path, MntFlags::MNT_DETACH);
    }
    for mount in mounts.iter().filter(|mount| mount.kind.starts_with("cgroup")) {
        remove(&mount.path.join(&cgroup));
    }
    let elsewhere = fs::read_to_string(files.join(ELSEWHERE)).unwrap_or_default();
    elsewhere.lines().for_each(|cgroup| remove(Path::new(cgroup)));
}

/// Processes in a cgroup, or in one below it.
pub fn processes(cgroup: &str) -> Vec<i32> {
    let within = |pid: &i32| {
        // A zombie that nobody has asked for its status holds nothing.
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        let is_zombie = stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']));
        let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default();
        !is_zombie && text.lines().any(|line| line.split([':', '/']).any(|part| part == cgroup))
    };
    let all = fs::read_dir("/proc").into_iter().flatten().flatten();
    all.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(within).collect()
}

/// Directories in a cgroup, itself included, over all hierarchies.
pub fn cgroups(cgroup: &str) -> Vec<std::path::PathBuf> {
    let mounts = mounts::list().unwrap_or_default();
    let roots =
        mounts.iter().filter(|mount| mount.kind.starts_with("cgroup")).map(|mount| mount.path.join(cgroup));
    let mut open: Vec<_> = roots.filter(|root| root.is_dir()).collect();
    let mut found = Vec::new();
    while let Some(directory) = open.pop() {
        let below = fs::read_dir(&directory).into_iter().flatten().flatten().map(|entry| entry.path());
        open.extend(below.filter(|path| path.is_dir()));
        found.push(directory);
    }
    found
}

/// A cgroup goes by rmdir(2), when nothing is below it.
fn remove(cgroup: &Path) {
    for entry in fs::read_dir(cgroup).into_iter().flatten().flatten().filter(|entry| entry.path().is_dir()) {
        remove(&entry.path());
    }
    let _ = fs::remove_dir(cgroup);
}
