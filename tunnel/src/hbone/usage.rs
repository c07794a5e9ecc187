//! Whether a tunnel that has arrived is used, so that one that is not can be closed.
//!
//! Invariant: a stream counts from the moment its request is read until whoever serves it lets go of it, however that ends.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::sleep;

/// The streams of one tunnel.
#[derive(Debug, Default)]
pub(super) struct Usage {
    now: AtomicUsize,
    ever: AtomicUsize,
    /// Told when the last one ends.
    idle: Notify,
}

/// One stream.
#[derive(Debug)]
pub(crate) struct InUse(Arc<Usage>);

impl Usage {
    pub(super) fn enter(self: &Arc<Self>) -> InUse {
        self.now.fetch_add(1, Ordering::Relaxed);
        self.ever.fetch_add(1, Ordering::Relaxed);
        InUse(Arc::clone(self))
    }

    /// Completes when there is no stream.
    pub(super) async fn none(&self) {
        while self.now.load(Ordering::Relaxed) > 0 {
            self.idle.notified().await;
        }
    }

    /// Completes when there has been no stream for `first`, if there never was one, else for `later`.
    pub(super) async fn unused(&self, first: Duration, later: Duration) {
        loop {
            self.none().await;
            let before = self.ever.load(Ordering::Relaxed);
            sleep(if before == 0 { first } else { later }).await;
            if self.now.load(Ordering::Relaxed) == 0 && self.ever.load(Ordering::Relaxed) == before {
                return;
            }
        }
    }
}

impl Drop for InUse {
    fn drop(&mut self) {
        if self.0.now.fetch_sub(1, Ordering::Relaxed) == 1 {
            self.0.idle.notify_one();
        }
    }
}

#[cfg(test)]
mod tests {
    use tokio::time::{Instant, timeout};

    use super::*;

    const FIRST: Duration = Duration::from_secs(10);
    const LATER: Duration = Duration::from_secs(100);

    #[tokio::test(start_paused = true)]
    async fn one_that_was_never_used_has_less_time_than_one_that_was() {
        let usage = Arc::new(Usage::default());
        let began = Instant::now();
        usage.unused(FIRST, LATER).await;
        assert_eq!(began.elapsed(), FIRST);
        let stream = usage.enter();
        assert!(timeout(10 * LATER, usage.unused(FIRST, LATER)).await.is_err());
        let began = Instant::now();
        drop(stream);
        usage.unused(FIRST, LATER).await;
        assert_eq!(began.elapsed(), LATER);
    }

    #[tokio::test(start_paused = true)]
    async fn a_stream_that_came_and_went_meanwhile_counts() {
        let usage = Arc::new(Usage::default());
        let began = Instant::now();
        let visit = async {
            sleep(FIRST / 2).await;
            drop(usage.enter());
        };
        tokio::join!(usage.unused(FIRST, LATER), visit);
        assert!(began.elapsed() >= LATER, "{:?}", began.elapsed());
    }
}
