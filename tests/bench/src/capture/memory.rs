//! Kernel memory, asked in two ways.
//!
//! The first is exact and blind to the rest of the machine: this process makes what it measures inside a memory cgroup of
//! its own, to which the kernel charges maps, programs, sockets, rules and routes. The second is the whole machine's, from
//! `/proc/meminfo` (slab, per-CPU and vmalloc memory): it also holds what the kernel charges to nobody, such as what
//! sockets are given for being in a map, and whatever everybody else did meanwhile. Caches that the kernel drops when it
//! needs the room (entries of `/proc/sys`) are in neither.

use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context as _, Result};
use linux::mounts;

const PREFIX: &str = "culvert-bench-";
/// Memory is given back after a grace period of the kernel; readings this far apart that agree are taken.
const SETTLE: Duration = Duration::from_millis(50);
const SETTLE_LIMIT: usize = 40;

/// Kernel memory in bytes.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Usage {
    /// Charged to the group.
    pub(crate) group: u64,
    /// Of the whole machine.
    pub(crate) machine: u64,
}

/// A memory cgroup that this process is in until this is dropped.
#[derive(Debug)]
pub(crate) struct Group {
    path: PathBuf,
    home: PathBuf,
}

impl Group {
    pub(crate) fn join() -> Result<Self> {
        let root = root()?;
        // Of runs that were killed; the kernel keeps those that somebody is in.
        for entry in fs::read_dir(&root)?.flatten() {
            if entry.file_name().to_string_lossy().starts_with(PREFIX) {
                let _ = fs::remove_dir(entry.path());
            }
        }
        let path = root.join(format!("{PREFIX}{}", std::process::id()));
        let home = root.join(home()?.trim_start_matches('/'));
        fs::create_dir(&path).with_context(|| format!("making the memory cgroup {}", path.display()))?;
        let group = Self { path, home };
        enter(&group.path)?;
        Ok(group)
    }

    /// What is in use once nothing changes any more.
    pub(crate) fn settled(&self) -> Result<Usage> {
        self.drop_caches();
        let mut last = self.usage()?;
        for _ in 0..SETTLE_LIMIT {
            std::thread::sleep(SETTLE);
            let now = self.usage()?;
            if now.group == last.group {
                return Ok(now);
            }
            last = now;
        }
        Ok(last)
    }

    /// Lets the kernel take back what it can of this group's memory: everything in v1, as much as is asked for in v2.
    fn drop_caches(&self) {
        for (file, amount) in [("memory.force_empty", "0"), ("memory.reclaim", "1G")] {
            // One of the two is there; v2 answers that it could not take as much as was asked for.
            let _ = fs::OpenOptions::new()
                .write(true)
                .open(self.path.join(file))
                .and_then(|mut file| file.write_all(amount.as_bytes()));
        }
    }

    fn usage(&self) -> Result<Usage> {
        let group = match fs::read_to_string(self.path.join("memory.kmem.usage_in_bytes")) {
            Ok(text) => text.trim().parse()?,
            Err(_) => {
                let stat = fs::read_to_string(self.path.join("memory.stat"))?;
                let kernel = stat.lines().find_map(|line| line.strip_prefix("kernel "));
                kernel
                    .context("memory.stat has no line of kernel memory: Linux 5.18 or newer is needed")?
                    .parse()?
            }
        };
        Ok(Usage { group, machine: machine()? })
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        let _ = enter(&self.home);
        let _ = fs::remove_dir(&self.path);
    }
}

fn enter(group: &Path) -> Result<()> {
    let file = group.join("cgroup.procs");
    fs::write(&file, std::process::id().to_string()).with_context(|| format!("entering {}", file.display()))
}

/// The hierarchy with the memory controller: v1's own, or v2.
fn root() -> Result<PathBuf> {
    let first = mounts::list()?
        .into_iter()
        .find(|mount| mount.kind == "cgroup" && mount.path.file_name().is_some_and(|name| name == "memory"));
    match first {
        Some(mount) => Ok(mount.path),
        None => Ok(linux::cgroup::root()?),
    }
}

/// Where this process is in that hierarchy.
fn home() -> Result<String> {
    let text = fs::read_to_string("/proc/self/cgroup")?;
    let of = |wanted: &str| {
        text.lines().find_map(|line| {
            let (controllers, path) = line.split_once(':')?.1.split_once(':')?;
            controllers.split(',').any(|name| name == wanted).then(|| path.to_owned())
        })
    };
    of("memory").or_else(|| of("")).context("/proc/self/cgroup names no memory cgroup")
}

/// Slab, per-CPU and vmalloc memory.
fn machine() -> Result<u64> {
    let text = fs::read_to_string("/proc/meminfo")?;
    let kib = |name: &str| -> Option<u64> {
        let line = text.lines().find(|line| line.split(':').next() == Some(name))?;
        line.split_whitespace().nth(1)?.parse().ok()
    };
    ["SUnreclaim", "Percpu", "VmallocUsed"]
        .iter()
        .map(|name| kib(name).map(|kib| kib * 1024).with_context(|| format!("/proc/meminfo has no {name}")))
        .sum()
}
