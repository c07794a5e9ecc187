//! Kernel settings of a network namespace (`/proc/sys/net`).
//!
//! `/proc/sys/net` shows the namespace of the thread that opens the file, so these run inside [`crate::netns::Netns::run`].

use std::fs;
use std::io;
use std::path::Path;

use nix::mount::{MsFlags, mount};
use nix::sys::statvfs::{FsFlags, statvfs};
use thiserror::Error;

use crate::mounts;

/// A setting that could not be read or written.
#[derive(Debug, Error)]
#[error(
    "sysctl {name}: {source}; the agent needs /proc/sys/net writable (CAP_NET_ADMIN, not mounted read-only)"
)]
pub struct SysctlError {
    /// Dotted name.
    pub name: &'static str,
    /// Cause.
    pub source: io::Error,
}

fn path(name: &str) -> std::path::PathBuf {
    Path::new("/proc/sys").join(name.replace('.', "/"))
}

/// Makes `/proc/sys` writable where a container runtime has mounted it read-only over the rest of `/proc`, as it does in containers
/// that are not privileged. Whether that was needed. The mount is this container's own; the host's is not touched.
///
/// # Errors
/// When the kernel refuses, for want of `CAP_SYS_ADMIN` or by a profile of AppArmor or seccomp that forbids mount(2).
pub fn make_writable() -> io::Result<bool> {
    let path = Path::new("/proc/sys");
    let is_own_mount = mounts::list()?.iter().any(|mount| mount.path == path);
    if !is_own_mount || !statvfs(path)?.flags().contains(FsFlags::ST_RDONLY) {
        return Ok(false);
    }
    // What else the runtime has forbidden there stays forbidden.
    let flags =
        MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_NOSUID | MsFlags::MS_NODEV | MsFlags::MS_NOEXEC;
    mount(None::<&str>, path, None::<&str>, flags, None::<&str>)?;
    Ok(true)
}

/// Writes `value` unless the setting has it already; whether it was written.
pub fn set(name: &'static str, value: &str) -> Result<bool, SysctlError> {
    let path = path(name);
    let error = |source| SysctlError { name, source };
    if fs::read_to_string(&path).map_err(error)?.trim() == value {
        return Ok(false);
    }
    fs::write(&path, value).map_err(error)?;
    Ok(true)
}

/// Reads a setting, without its line end.
pub fn get(name: &'static str) -> Result<String, SysctlError> {
    let text = fs::read_to_string(path(name)).map_err(|source| SysctlError { name, source })?;
    Ok(text.trim().to_owned())
}
