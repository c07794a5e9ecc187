//! Kernel settings of a network namespace (`/proc/sys/net`).
//!
//! `/proc/sys/net` shows the namespace of the thread that opens the file, so these run inside [`crate::netns::Netns::run`].

use std::fs;
use std::io;
use std::path::Path;

use thiserror::Error;

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
