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

/// What happens around a file.
pub struct Events {
    happened: mpsc::Receiver<()>,
    /// Keeps the other end of `happened`; none where nothing can be watched.
    watcher: Option<RecommendedWatcher>,
}

impl Events {
    /// Begins to watch the directory of a file. What is read after this cannot change unseen.
    pub fn around(path: &Path) -> Self {
        let directory = match path.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        // One event waiting says all that a thousand would.
        let (tell, happened) = mpsc::channel(1);
        let watched = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reading the file is an event as well, which must not lead to reading it again.
            if event.map_or(true, |event| !event.kind.is_access()) {
                let _ = tell.try_send(());
            }
        })
        .and_then(|mut watcher| watcher.watch(directory, RecursiveMode::NonRecursive).map(|()| watcher));
        let watcher = watched
            .inspect_err(|error| {
                let path = path.display();
                warn!(%path, %error, "the directory cannot be watched; the file is looked at every {POLL:?}");
            })
            .ok();
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
