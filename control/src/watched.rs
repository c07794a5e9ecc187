//! A small file that is followed: roots of trust, lists of revoked certificates.
//!
//! The directory is watched, not the file: a mounted ConfigMap is replaced by swapping a symlink beside it. A slow poll
//! catches what no event tells of, and does alone where the directory cannot be watched. Invariant: each version that
//! differs from the one before is told once, and so is each failure to read it.

use std::path::{Path, PathBuf};
use std::time::Duration;

use notify::{RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::warn;

use crate::grpc::FileError;
use crate::grpc::file::{read, read_now};

/// How long the directory must have been quiet before the file is read.
const DEBOUNCE: Duration = Duration::from_millis(100);
/// How many times in a row that wait is begun anew, before the file is read all the same.
const DEBOUNCE_ROUNDS: u32 = 10;
/// How often the file is read without an event.
const POLL: Duration = Duration::from_secs(10);

/// A file and what was seen of it.
pub struct Watched {
    path: PathBuf,
    limit: u64,
    seen: Result<Vec<u8>, String>,
    events: mpsc::Receiver<()>,
    /// Keeps the other end of `events`; none where nothing can be watched.
    watcher: Option<notify::RecommendedWatcher>,
}

impl Watched {
    /// Begins to follow a file of at most `limit` bytes. What it holds now, if anything, has been seen.
    pub fn new(path: impl Into<PathBuf>, limit: u64) -> Self {
        let path = path.into();
        // Watched before it is read, so that no change falls in between.
        let (watcher, events) = watch_directory(&path);
        let seen = read_now(&path, limit).map_err(|error| error.to_string());
        Self { path, limit, seen, events, watcher }
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
            self.event().await;
            let now = read(&self.path, self.limit).await.map_err(|error| error.source.to_string());
            if now != self.seen {
                self.seen = now;
                return;
            }
        }
    }

    async fn event(&mut self) {
        if self.watcher.is_none() {
            return tokio::time::sleep(POLL).await;
        }
        if timeout(POLL, self.events.recv()).await.is_ok() {
            for _ in 0..DEBOUNCE_ROUNDS {
                if timeout(DEBOUNCE, self.events.recv()).await.is_err() {
                    return;
                }
            }
        }
    }
}

impl std::fmt::Debug for Watched {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Watched").field("path", &self.path).finish_non_exhaustive()
    }
}

fn watch_directory(path: &Path) -> (Option<notify::RecommendedWatcher>, mpsc::Receiver<()>) {
    let directory = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    // One event waiting says all that a thousand would.
    let (tell, events) = mpsc::channel(1);
    let watched = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        // Reading the file is an event as well, which must not lead to reading it again.
        if event.map_or(true, |event| !event.kind.is_access()) {
            let _ = tell.try_send(());
        }
    })
    .and_then(|mut watcher| watcher.watch(directory, RecursiveMode::NonRecursive).map(|()| watcher));
    match watched {
        Ok(watcher) => (Some(watcher), events),
        Err(error) => {
            warn!(path = %path.display(), %error, "the directory cannot be watched; the file is looked at every 10 s");
            (None, events)
        }
    }
}

#[cfg(test)]
mod tests {
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
