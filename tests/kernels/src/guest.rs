//! Being the only program of a virtual machine.

use std::convert::Infallible;
use std::fs::{self, File};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use nix::kmod::{ModuleInitFlags, finit_module};
use nix::mount::{MsFlags, mount};
use nix::sys::reboot::{RebootMode, reboot};
use nix::sys::termios::tcdrain;

/// The agent's program.
pub(crate) const AGENT: &str = "/culvert";
/// The word of the kernel with the number of idle connections.
const CONNECTIONS: &str = "IDLE_CONNECTIONS";
/// Modules that the kernel needs for the checks, loaded in the order of their names.
const MODULES: &str = "/modules";
/// Modules without which a part of capture is to say that it needs them.
const OPTIONAL: &str = "/optional";
/// File systems of a machine that has booted: kind and mount point.
const FILE_SYSTEMS: [(&str, &str); 4] =
    [("proc", "/proc"), ("sysfs", "/sys"), ("devtmpfs", "/dev"), ("cgroup2", "/sys/fs/cgroup")];

/// Whether this is a virtual machine of which this program is the first.
pub(crate) fn is_one() -> bool {
    std::process::id() == 1
}

/// How many idle connections this machine is to have, if any. The kernel takes words that it does not know for its first program's
/// environment.
pub(crate) fn connections() -> Result<Option<usize>> {
    let given = std::env::var_os(CONNECTIONS);
    let read = |text: std::ffi::OsString| text.to_str()?.parse().ok();
    given.map(|text| read(text).context("no number of connections")).transpose()
}

/// Makes the machine usable, runs `checks`, and switches it off.
pub(crate) fn run(checks: impl FnOnce() -> Result<()>) -> Result<Infallible> {
    if let Err(error) = boot().and_then(|()| checks()) {
        println!("{error:#}");
    }
    // What is still in the serial line's buffer would be lost.
    tcdrain(std::io::stdout()).context("waiting for the serial line")?;
    reboot(RebootMode::RB_POWER_OFF).context("switching the machine off")
}

fn boot() -> Result<()> {
    for (kind, path) in FILE_SYSTEMS {
        fs::create_dir_all(path).with_context(|| format!("making {path}"))?;
        mount(Some(kind), path, Some(kind), MsFlags::empty(), None::<&str>)
            .with_context(|| format!("mounting {kind} at {path}"))?;
    }
    load(MODULES)?;
    let uptime = fs::read_to_string("/proc/uptime")?;
    println!("booted, {} s after power-on", uptime.split(' ').next().unwrap_or("?"));
    Ok(())
}

/// Whether there are modules that are not loaded yet.
pub(crate) fn has_optional_modules() -> bool {
    Path::new(OPTIONAL).exists()
}

/// Loads them.
pub(crate) fn load_optional_modules() -> Result<()> {
    load(OPTIONAL)
}

fn load(directory: &str) -> Result<()> {
    let entries = fs::read_dir(directory).with_context(|| format!("reading {directory}"))?;
    let mut modules: Vec<PathBuf> = entries.flatten().map(|entry| entry.path()).collect();
    modules.sort_unstable();
    for module in modules {
        let file = File::open(&module)?;
        finit_module(&file, c"", ModuleInitFlags::empty())
            .with_context(|| format!("loading {}", module.display()))?;
    }
    Ok(())
}
