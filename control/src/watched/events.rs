//! When a file that may be replaced at any time is to be read again.
//!
//! The directory is watched, not the file: editors replace the file, and a mounted ConfigMap a symlink beside it. A slow poll
//! catches what no event tells of, such as a change behind a symlink to elsewhere, and does alone where the directory cannot
//! be watched. Invariant: a change is followed by an event within the poll's period, however many others come.

use std::fmt;
use std::path::Path;
use std::time::Duration;

use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use tokio::sync::mpsc;
use tokio::time::timeout;
use tracing::warn;

/// How long the directory must have been quiet before the file is read.
const DEBOUNCE: Duration = Duration::from_millis(100);
/// How many times in a row that wait is begun anew, before the file is read all the same.
const DEBOUNCE_ROUNDS: u32 = 10;
/// How often the file is read without an event.
const POLL: Duration = Duration::from_secs(10);

/// What happens around a file, or in directories.
pub struct Events {
    happened: mpsc::Receiver<()>,
    /// Keeps the other end of `happened`; none where nothing can be watched.
    watcher: Option<RecommendedWatcher>,
}

impl Events {
    /// Begins to watch the directory of a file. What is read after this cannot change unseen.
    pub fn around(path: &Path) -> Self {
        match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => Self::in_each(&[parent]),
            _ => Self::in_each(&["."]),
        }
    }

    /// Begins to watch directories, not those below them; one that cannot be watched is looked at from time to time.
    pub fn in_each(directories: &[impl AsRef<Path>]) -> Self {
        // One event waiting says all that a thousand would.
        let (tell, happened) = mpsc::channel(1);
        let made = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reading the file is an event as well, which must not lead to reading it again.
            if event.map_or(true, |event| !event.kind.is_access()) {
                let _ = tell.try_send(());
            }
        });
        let mut watcher =
            made.inspect_err(|error| warn!(%error, "directories are looked at every {POLL:?}")).ok();
        for directory in directories.iter().map(AsRef::as_ref) {
            if let Some(Err(error)) =
                watcher.as_mut().map(|watcher| watcher.watch(directory, RecursiveMode::NonRecursive))
            {
                let path = directory.display();
                warn!(%path, %error, "the directory cannot be watched; it is looked at every {POLL:?}");
            }
        }
        Self { happened, watcher }
    }

    /// Completes when the file may have changed, and the directory has been quiet for a moment since.
    pub async fn next(&mut self) {
        if self.watcher.is_none() {
            return tokio::time::sleep(POLL).await;
        }
        if timeout(POLL, self.happened.recv()).await.is_ok() {
            for _ in 0..DEBOUNCE_ROUNDS {
                if timeout(DEBOUNCE, self.happened.recv()).await.is_err() {
                    return;
                }
            }
        }
    }
}

impl fmt::Debug for Events {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Events").field("is_watched", &self.watcher.is_some()).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_happens_in_any_of_the_directories_is_told() {
        let dirs = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
        let paths = [dirs[0].path().to_owned(), dirs[0].path().join("missing"), dirs[1].path().to_owned()];
        let mut events = Events::in_each(&paths);
        for dir in &dirs {
            std::fs::write(dir.path().join("file"), "x").unwrap();
            // Sooner than without an event.
            timeout(POLL / 2, events.next()).await.unwrap();
        }
        assert!(timeout(Duration::from_millis(500), events.next()).await.is_err(), "nothing has happened");
    }
}
