//! One run of a test or the demo: the name that everything made for it carries, and its end.
//!
//! Invariant: whatever a run leaves in the system is found by its id alone (`cvPIDxN`): namespaces `/run/netns/ID-*`
//! with the processes in them, pins below `/sys/fs/bpf/culvert-ID`, containers in the cgroup `culvert-ID`, files and mounts below
//! `/run/culvert-harness/ID`. So teardown
//! needs no memory of what was done, and a run whose process is dead can be swept by the next one.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{self, SigSet, Signal};
use nix::unistd::Pid;

use crate::command;
use crate::wait::eventually;

const FILES: &str = "/run/culvert-harness";
const NETNS: &str = "/run/netns";
const BPFFS: &str = "/sys/fs/bpf";
/// Its presence keeps a dead run from being swept.
const KEEP: &str = "keep";

/// A process that holds eBPF programs takes a moment to die.
const DEATH_LIMIT: Duration = Duration::from_secs(10);

static LIVE: Mutex<Vec<String>> = Mutex::new(Vec::new());
static COUNTER: AtomicU32 = AtomicU32::new(0);

/// A run. Dropping the last handle takes everything down.
#[derive(Debug)]
pub struct Run {
    id: String,
}

impl Run {
    /// Begins a run: checks what it needs, sweeps what dead runs left, makes its directory.
    pub fn start() -> Result<Arc<Self>> {
        if !nix::unistd::geteuid().is_root() {
            bail!("network namespaces need root: run this as root (sudo)");
        }
        for (tool, package) in [("ip", "iproute2"), ("nsenter", "util-linux")] {
            if find_tool(tool).is_none() {
                bail!("{tool} is missing: apt-get install {package}");
            }
        }
        sweep();
        mount_bpffs()?;
        let id = format!("cv{}x{}", std::process::id(), COUNTER.fetch_add(1, Ordering::Relaxed));
        fs::create_dir_all(Path::new(FILES).join(&id)).context("making the run's directory")?;
        fs::create_dir_all(bpffs_of(&id)).context("making the run's directory in bpffs")?;
        live().push(id.clone());
        Ok(Arc::new(Self { id }))
    }

    /// The name that everything of this run begins with.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Directory for the run's files.
    pub fn dir(&self) -> PathBuf {
        Path::new(FILES).join(&self.id)
    }

    /// Directory in bpffs for the run's pins.
    pub fn bpffs(&self) -> PathBuf {
        bpffs_of(&self.id)
    }

    /// Makes a network namespace for this run; loopback is up and no address waits for duplicate detection.
    pub fn add_netns(&self, name: &str) -> Result<PathBuf> {
        let full = format!("{}-{name}", self.id);
        command::ip(&format!("netns add {full}"))?;
        let path = Path::new(NETNS).join(&full);
        for scope in ["all", "default"] {
            crate::inside::set_sysctl(&path, &format!("net/ipv6/conf/{scope}/accept_dad"), "0")?;
        }
        command::ip(&format!("-n {full} link set lo up"))?;
        Ok(path)
    }

    /// Leaves everything standing when this process ends.
    pub fn keep(&self) -> Result<()> {
        fs::write(self.dir().join(KEEP), "")?;
        live().retain(|id| *id != self.id);
        Ok(())
    }
}

impl Drop for Run {
    fn drop(&mut self) {
        if !self.dir().join(KEEP).exists() {
            teardown(&self.id);
            live().retain(|id| *id != self.id);
        }
    }
}

/// From now on SIGINT and SIGTERM take the live runs down before the process ends. Call it before threads are started:
/// they inherit the blocked signals.
pub fn teardown_on_signals() -> Result<()> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGINT);
    signals.add(Signal::SIGTERM);
    signals.thread_block()?;
    std::thread::Builder::new().name("signals".to_owned()).spawn(move || {
        if let Ok(signal) = signals.wait() {
            let ids = live().clone();
            ids.iter().for_each(|id| teardown(id));
            std::process::exit(128 + signal as i32);
        }
    })?;
    Ok(())
}

/// Whatever is there of runs of this process, kept or not.
pub fn standing() -> Vec<PathBuf> {
    let own = format!("cv{}x", std::process::id());
    let pins = format!("culvert-{own}");
    let of = |dir: &str, prefix: &str| -> Vec<PathBuf> {
        names_in(Path::new(dir), prefix).into_iter().map(|name| Path::new(dir).join(name)).collect()
    };
    [of(FILES, &own), of(NETNS, &own), of(BPFFS, &pins)].concat()
}

/// Runs that were kept with [`Run::keep`].
pub fn kept() -> Vec<String> {
    run_ids().into_iter().filter(|id| Path::new(FILES).join(id).join(KEEP).exists()).collect()
}

/// Takes down what runs of dead processes left, but for the kept ones.
pub fn sweep() {
    let kept = kept();
    for id in run_ids().into_iter().filter(|id| !kept.contains(id)) {
        let alive = owner(&id).is_none_or(|pid| Path::new("/proc").join(pid.to_string()).exists());
        if !alive {
            teardown(&id);
        }
    }
}

/// Takes down everything that carries the run's name. Failures do not stop it: what is left is swept by the next run.
pub fn teardown(id: &str) {
    let prefix = format!("{id}-");
    let own = std::process::id().cast_signed();
    let namespaces = names_in(Path::new(NETNS), &prefix);
    // Processes of all namespaces first: an agent of one namespace holds sockets in others.
    let mut killed = Vec::new();
    for name in &namespaces {
        let pids = command::ip(&format!("netns pids {name}")).unwrap_or_default();
        killed.extend(
            pids.split_whitespace().filter_map(|pid| pid.parse::<i32>().ok()).filter(|pid| *pid != own),
        );
    }
    for pid in &killed {
        let _ = signal::kill(Pid::from_raw(*pid), Signal::SIGKILL);
    }
    let dead = || killed.iter().all(|pid| is_dead(*pid)).then_some(());
    let _ = eventually("killed processes to be gone", DEATH_LIMIT, dead);
    crate::containers::teardown(id, &Path::new(FILES).join(id), &bpffs_of(id));
    for name in &namespaces {
        let _ = command::ip(&format!("netns del {name}"));
    }
    let _ = fs::remove_dir_all(bpffs_of(id));
    let _ = fs::remove_dir_all(Path::new(FILES).join(id));
}

/// Gone, or a zombie whose parent has not asked for its status: either way it has let go of all it held.
fn is_dead(pid: i32) -> bool {
    let Ok(stat) = fs::read_to_string(format!("/proc/{pid}/stat")) else { return true };
    // pid (name) state ...; a name may have parentheses in it.
    stat.rsplit_once(") ").is_none_or(|(_, rest)| rest.starts_with(['Z', 'X']))
}

/// Finds a program in `PATH`, or where Debian keeps those of root.
pub fn find_tool(name: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let more = ["/usr/sbin", "/sbin", "/usr/local/sbin"].map(PathBuf::from);
    std::env::split_paths(&path).chain(more).map(|dir| dir.join(name)).find(|file| file.is_file())
}

fn live() -> std::sync::MutexGuard<'static, Vec<String>> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

fn bpffs_of(id: &str) -> PathBuf {
    Path::new(BPFFS).join(format!("culvert-{id}"))
}

/// Ids of all runs of which something is there.
fn run_ids() -> Vec<String> {
    let mut ids = names_in(Path::new(FILES), "cv");
    ids.extend(
        names_in(Path::new(NETNS), "cv")
            .iter()
            .filter_map(|n| n.split_once('-'))
            .map(|(id, _)| id.to_owned()),
    );
    let pins = names_in(Path::new(BPFFS), "culvert-cv");
    ids.extend(pins.iter().filter_map(|name| name.strip_prefix("culvert-")).map(str::to_owned));
    ids.retain(|id| owner(id).is_some());
    ids.sort_unstable();
    ids.dedup();
    ids
}

/// The process in a run's id.
fn owner(id: &str) -> Option<u32> {
    let (pid, count) = id.strip_prefix("cv")?.split_once('x')?;
    count.parse::<u32>().ok()?;
    pid.parse().ok()
}

fn names_in(dir: &Path, prefix: &str) -> Vec<String> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten();
    entries.filter_map(|e| e.file_name().into_string().ok()).filter(|name| name.starts_with(prefix)).collect()
}

fn mount_bpffs() -> Result<()> {
    let mounted = linux::mounts::list()?.iter().any(|m| m.kind == "bpf" && m.path == Path::new(BPFFS));
    if !mounted {
        command::run(std::process::Command::new("mount").args(["-t", "bpf", "bpf", BPFFS]))
            .context("mounting bpffs: does the kernel have CONFIG_BPF_SYSCALL?")?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_tell_their_process() {
        assert_eq!(owner("cv123x4"), Some(123));
        for foreign in ["cv123", "cvx4", "other", "cv1x"] {
            assert_eq!(owner(foreign), None, "{foreign}");
        }
    }
}
