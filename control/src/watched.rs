//! A small file that is followed: roots of trust, lists of revoked certificates.
//!
//! Invariant: each version that differs from the one before is told once, and so is each failure to read it. When something
//! may have happened, [`Events`] say.

mod events;

use std::path::{Path, PathBuf};

pub use self::events::Events;
use crate::grpc::FileError;
use crate::grpc::file::{read, read_now};

/// A file and what was seen of it.
pub struct Watched {
    path: PathBuf,
    limit: u64,
    seen: Result<Vec<u8>, String>,
    events: Events,
}

impl Watched {
    /// Begins to follow a file of at most `limit` bytes. What it holds now, if anything, has been seen.
    pub fn new(path: impl Into<PathBuf>, limit: u64) -> Self {
        let path = path.into();
        // Watched before it is read, so that no change falls in between.
        let events = Events::around(&path);
        let seen = read_now(&path, limit).map_err(|error| error.to_string());
        Self { path, limit, seen, events }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it held when it was looked at last, or why that could not be read.
    ///
    /// # Errors
    /// A [`FileError`] in the words of the system.
    pub fn seen(&self) -> Result<&[u8], FileError> {
        self.seen.as_deref().map_err(|reason| FileError {
            path: self.path.clone(),
            source: std::io::Error::other(reason.clone()),
        })
    }

    /// Completes when the file has become another, or unreadable in another way; [`Self::seen`] says which. May be
    /// abandoned and called again.
    pub async fn changed(&mut self) {
        loop {
            self.events.next().await;
            let now = read(&self.path, self.limit).await.map_err(|error| error.source.to_string());
            if now != self.seen {
                self.seen = now;
                return;
            }
        }
    }
}

impl std::fmt::Debug for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watched").field("path", &self.path).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    async fn soon(file: &mut Watched) {
        timeout(Duration::from_secs(60), file.changed()).await.unwrap();
    }

    #[tokio::test]
    async fn each_version_is_told_once() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("root-cert.pem");
        let mut file = Watched::new(&path, 100);
        assert!(file.seen().unwrap_err().to_string().contains("root-cert.pem"));
        std::fs::write(&path, "one").unwrap();
        soon(&mut file).await;
        assert_eq!(file.seen().unwrap(), b"one");
        // Written anew, with the same.
        std::fs::write(&path, "one").unwrap();
        std::fs::write(dir.path().join("other"), "two").unwrap();
        assert!(timeout(Duration::from_millis(500), file.changed()).await.is_err());
        std::fs::remove_file(&path).unwrap();
        soon(&mut file).await;
        assert!(file.seen().is_err());
        std::fs::write(&path, vec![b'x'; 101]).unwrap();
        soon(&mut file).await;
        assert!(file.seen().unwrap_err().to_string().contains("larger than"));
    }

    #[tokio::test]
    async fn a_symlink_that_is_swapped_is_a_change() {
        let dir = tempfile::tempdir().unwrap();
        let mount = |version: &str| {
            std::fs::create_dir(dir.path().join(version)).unwrap();
            std::fs::write(dir.path().join(version).join("crl.pem"), version).unwrap();
            std::os::unix::fs::symlink(version, dir.path().join("..tmp")).unwrap();
            std::fs::rename(dir.path().join("..tmp"), dir.path().join("..data")).unwrap();
        };
        mount("..v1");
        let path = dir.path().join("crl.pem");
        std::os::unix::fs::symlink("..data/crl.pem", &path).unwrap();
        let mut file = Watched::new(&path, 100);
        assert_eq!(file.seen().unwrap(), b"..v1");
        mount("..v2");
        soon(&mut file).await;
        assert_eq!(file.seen().unwrap(), b"..v2");
    }

    #[tokio::test(start_paused = true)]
    async fn without_a_directory_it_is_looked_for_all_the_same() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("not-yet").join("file");
        let mut file = Watched::new(&path, 100);
        assert!(file.seen().is_err());
        std::fs::create_dir(path.parent().unwrap()).unwrap();
        std::fs::write(&path, "here").unwrap();
        soon(&mut file).await;
        assert_eq!(file.seen().unwrap(), b"here");
    }
}
