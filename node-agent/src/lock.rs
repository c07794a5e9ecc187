//! One agent an installation: a lock on a file in the run directory, held for the life of the process.
//!
//! The kernel gives it back when the process ends, however it ends. The lock belongs to the open file (flock(2)), so whoever
//! is given a descriptor of it holds it too: that is how it passes from one agent to the next without a moment in between.

use std::fs::{File, OpenOptions};
use std::io::{Read as _, Seek as _, Write as _};
use std::os::fd::OwnedFd;
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::Path;

use anyhow::{Context as _, bail};

/// The held lock.
#[derive(Debug)]
pub(crate) struct InstanceLock {
    file: File,
}

/// Who may use a run directory.
#[derive(Debug)]
pub(crate) enum Taken {
    /// The one who asked.
    Ours(InstanceLock),
    /// Another process, as it says itself.
    Held(String),
}

impl InstanceLock {
    /// Takes the lock in `run_dir`, which is made if it is not there; an error if another process has it.
    pub(crate) fn take(run_dir: &Path) -> anyhow::Result<Self> {
        match Self::try_take(run_dir)? {
            Taken::Ours(lock) => Ok(lock),
            Taken::Held(holder) => bail!(
                "another agent (process {holder}) uses {}; stop it first, or give this one its own --run-dir and --bpffs",
                run_dir.display()
            ),
        }
    }

    /// Takes the lock in `run_dir` if nobody has it.
    pub(crate) fn try_take(run_dir: &Path) -> anyhow::Result<Taken> {
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
            return Ok(Taken::Held(holder.trim().to_owned()));
        }
        let mut lock = Self { file };
        lock.sign()?;
        Ok(Taken::Ours(lock))
    }

    /// The lock that the agent before this one held, by the descriptor that it gave.
    pub(crate) fn inherit(descriptor: OwnedFd) -> Self {
        Self { file: descriptor.into() }
    }

    /// Another descriptor of it, for the next agent.
    pub(crate) fn share(&self) -> std::io::Result<OwnedFd> {
        Ok(self.file.try_clone()?.into())
    }

    /// Says in the file whose it is.
    pub(crate) fn sign(&mut self) -> anyhow::Result<()> {
        self.file.set_len(0)?;
        self.file.rewind()?;
        writeln!(self.file, "{}", std::process::id())?;
        Ok(())
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
        let heir = InstanceLock::inherit(first.share().unwrap());
        drop(first);
        assert!(matches!(InstanceLock::try_take(&dir).unwrap(), Taken::Held(_)));
        drop(heir);
        InstanceLock::take(&dir).unwrap();
        std::fs::remove_dir_all(&dir).unwrap();
    }
}
