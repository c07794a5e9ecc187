//! A cgroup for the thread that plays the kubelet, which on a node has one of its own.
//!
//! It is a threaded one (cgroup-v2.rst, "Threads"), for the servers of the same process stay where they are. It goes when this is
//! dropped.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use linux::cgroup;

/// The cgroup, empty or with the calling thread in it.
pub(super) struct Apart {
    home: PathBuf,
    path: PathBuf,
    is_inside: bool,
}

impl Apart {
    /// Makes it, below the cgroup of this process.
    pub(super) fn new() -> Result<Self> {
        let own = std::process::id().to_string();
        let home = cgroup::of(&Path::new("/proc").join(&own)).context("the cgroup of this process")?;
        let path = home.join(format!("culvert-bench-{own}"));
        fs::create_dir(&path).with_context(|| path.display().to_string())?;
        let apart = Self { home, path, is_inside: false };
        fs::write(apart.path.join("cgroup.type"), "threaded").context("a threaded cgroup")?;
        Ok(apart)
    }

    /// Moves the calling thread in; returns where that is.
    pub(super) fn enter(&mut self) -> Result<PathBuf> {
        if !self.is_inside {
            go(&self.path)?;
            self.is_inside = true;
        }
        Ok(self.path.clone())
    }

    /// Moves the calling thread, which is the one that was moved in, back.
    pub(super) fn leave(&mut self) -> Result<()> {
        if self.is_inside {
            go(&self.home)?;
            self.is_inside = false;
        }
        Ok(())
    }
}

/// 0 stands for the thread that writes.
fn go(to: &Path) -> Result<()> {
    fs::write(to.join("cgroup.threads"), "0").with_context(|| format!("moving into {}", to.display()))
}

impl Drop for Apart {
    fn drop(&mut self) {
        if let Err(error) = self.leave().and_then(|()| Ok(fs::remove_dir(&self.path)?)) {
            println!("{} is left behind: {error:#}", self.path.display());
        }
    }
}
