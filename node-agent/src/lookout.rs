//! The one thread on which is done what is done again and again and blocks: looking at each pod's capture, at the process table.
//!
//! The threads of blocking work take turns, so that a look each fraction of a second would keep alive as many of them as a start with many
//! pods once needed, each with its stack and its caches. Invariant: all looks share one thread, in the order in which they were
//! asked for; whatever waits for something else (a repair, a connection) is no look.

use std::io;

use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinError;

/// Looks.
#[derive(Debug)]
pub(crate) struct Lookout {
    /// There until it is dropped. Nothing runs on it but blocking work.
    runtime: Option<Runtime>,
}

impl Lookout {
    /// `on_start` is done by the thread before anything else.
    pub(crate) fn new(on_start: impl Fn() + Send + Sync + 'static) -> io::Result<Self> {
        let mut runtime = Builder::new_current_thread();
        runtime.thread_name("lookout").max_blocking_threads(1).on_thread_start(on_start);
        Ok(Self { runtime: Some(runtime.build()?) })
    }

    /// Does it when all that was asked for before is done. Fails if it panics, which loses nothing else.
    pub(crate) async fn look<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, JoinError> {
        match &self.runtime {
            Some(runtime) => runtime.spawn_blocking(work).await,
            None => tokio::task::spawn_blocking(work).await,
        }
    }
}

impl Drop for Lookout {
    fn drop(&mut self) {
        // Waits for nobody: who drops it may be a task.
        if let Some(runtime) = self.runtime.take() {
            runtime.shutdown_background();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[tokio::test]
    async fn looks_share_a_thread_and_one_that_panics_ends_no_other() {
        let lookout = Arc::new(Lookout::new(|| {}).unwrap());
        let asked = (0..50).map(|number| {
            let lookout = Arc::clone(&lookout);
            tokio::spawn(async move {
                lookout
                    .look(move || {
                        assert_ne!(number, 7, "on purpose");
                        std::thread::current().id()
                    })
                    .await
            })
        });
        let mut threads = std::collections::HashSet::new();
        let (mut seen, mut failed) = (0, 0);
        for look in asked.collect::<Vec<_>>() {
            match look.await.unwrap() {
                Ok(thread) => (threads.insert(thread), seen += 1).1,
                Err(_) => failed += 1,
            }
        }
        assert_eq!((seen, failed, threads.len()), (49, 1, 1));
        // By a task, which may not block.
        drop(lookout);
    }
}
