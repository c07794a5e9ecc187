//! Groups of processes whose time on CPUs the kernel counts together (cgroup v2, `cpu.stat`).
//!
//! The counter is there in every group, whether or not the controller is; the work that the kernel does on behalf of a process
//! is in it. A group goes with its handle; one that a killed run left is swept by the next.

use std::fs;
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result};
use harness::eventually;

const PREFIX: &str = "culvert-bench-";
/// A process that was killed takes a moment to leave its group.
const LIMIT: Duration = Duration::from_secs(5);

static COUNTER: AtomicU32 = AtomicU32::new(0);

/// A group.
#[derive(Debug)]
pub(super) struct Group {
    directory: PathBuf,
}

impl Group {
    pub(super) fn new(name: &str) -> Result<Self> {
        let number = COUNTER.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{number}-{name}", std::process::id());
        let directory = linux::cgroup::root()?.join(name);
        fs::create_dir(&directory).with_context(|| format!("making {}", directory.display()))?;
        Ok(Self { directory })
    }

    /// Puts a process in, with all its threads.
    pub(super) fn enter(&self, process: u32) -> Result<()> {
        let file = self.directory.join("cgroup.procs");
        fs::write(&file, process.to_string()).with_context(|| format!("writing {}", file.display()))
    }

    /// Seconds that its processes have had on CPUs.
    pub(super) fn cpu(&self) -> Result<f64> {
        let file = self.directory.join("cpu.stat");
        let text = fs::read_to_string(&file).with_context(|| format!("reading {}", file.display()))?;
        let micros = text.lines().find_map(|line| line.strip_prefix("usage_usec "));
        Ok(micros.context("cpu.stat has no usage_usec")?.parse::<f64>()? / 1e6)
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // What is left is swept by the next run.
        let _ = eventually("a group to be empty", LIMIT, || fs::remove_dir(&self.directory).ok());
    }
}

/// Removes the empty groups of dead runs.
pub(super) fn sweep() -> Result<()> {
    for entry in fs::read_dir(linux::cgroup::root()?)?.flatten() {
        if entry.file_name().to_string_lossy().starts_with(PREFIX) {
            // One that is in use cannot be removed.
            let _ = fs::remove_dir(entry.path());
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_group_counts_what_is_in_it_and_goes_with_its_handle() {
        let group = Group::new("test").unwrap();
        let mut child = std::process::Command::new("sh").args(["-c", "while :; do :; done"]).spawn().unwrap();
        group.enter(child.id()).unwrap();
        let counted =
            eventually("time to be counted", LIMIT, || group.cpu().ok().filter(|seconds| *seconds > 0.01));
        child.kill().unwrap();
        child.wait().unwrap();
        counted.unwrap();
        let directory = group.directory.clone();
        drop(group);
        assert!(!directory.exists());
    }
}
