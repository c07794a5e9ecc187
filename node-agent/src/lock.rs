//! One agent an installation: a lock on a file in the run directory, held for the life of the process.
//!
//! The kernel gives it back when the process ends, however it ends.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use anyhow::{Context as _, bail};

/// The held lock.
#[derive(Debug)]
pub(crate) struct InstanceLock {
    _file: File,
}

impl InstanceLock {
    /// Takes the lock in `run_dir`, which is made if it is not there.
    pub(crate) fn take(run_dir: &Path) -> anyhow::Result<Self> {
        std::fs::DirBuilder::new().recursive(true).mode(0o700).create(run_dir).with_context(|| {
            format!("create the run directory {} (choose another with --run-dir)", run_dir.display())
        })?;
        let path = run_dir.join("lock");
        let mut file = OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(false)
            .mode(0o600)
            .open(&path)
            .with_context(|| format!("open {}", path.display()))?;
        if file.try_lock().is_err() {
            let mut holder = String::new();
            // Only for the message; an unreadable file is as good as an empty one.
            let _ = file.read_to_string(&mut holder);
            bail!(
                "another agent (process {}) uses {}; stop it first, or give this one its own --run-dir and --bpffs",
                holder.trim(),
                run_dir.display()
            );
        }
        file.set_len(0)?;
        file.rewind()?;
        writeln!(file, "{}", std::process::id())?;
        Ok(Self { _file: file })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_second_agent_is_told_who_the_first_is() {
        let dir = std::env::temp_dir().join(format!("culvert-lock-{}", std::process::id()));
        let first = InstanceLock::take(&dir).unwrap();
        let error = InstanceLock::take(&dir).unwrap_err().to_string();
        assert!(error.contains(&format!("process {}", std::process::id())), "{error}");
        drop(first);
        InstanceLock::take(&dir).unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
