//! The root of the cgroup v2 hierarchy, where the node's programs are attached.

use std::io;
use std::path::PathBuf;

use thiserror::Error;

use crate::mounts;

/// Why there is no cgroup to attach to.
#[derive(Debug, Error)]
pub enum CgroupError {
    /// cgroup v2 is not mounted.
    #[error(
        "no cgroup v2 hierarchy is mounted, and capture needs one: boot with systemd.unified_cgroup_hierarchy=1, or \
         mount -t cgroup2 none /sys/fs/cgroup/unified"
    )]
    NotMounted,
    /// The mount table cannot be read.
    #[error("/proc/self/mountinfo cannot be read: {0}")]
    Mounts(#[from] io::Error),
}

/// Where cgroup v2 is mounted, unified or beside v1.
pub fn root() -> Result<PathBuf, CgroupError> {
    mounts::find("cgroup2")?.ok_or(CgroupError::NotMounted)
}
