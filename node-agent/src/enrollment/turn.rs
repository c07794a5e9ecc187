//! A turn at work on a pod: so many are had at once, and who only waits gives it up meanwhile.
//!
//! Invariant: work that takes turns is done by no more than there are turns at a time. Waiting for a time of one's own is no work: that of all
//! goes by together, however many they are.

use std::future::Future;

use tokio::sync::{Semaphore, SemaphorePermit};

/// The right to work; free for who need not ask.
pub(super) struct Turn<'a> {
    turns: Option<&'a Semaphore>,
    permit: Option<SemaphorePermit<'a>>,
}

impl<'a> Turn<'a> {
    /// Waits for one.
    pub(super) async fn take(turns: &'a Semaphore) -> Self {
        // Nobody closes the semaphore.
        Self { turns: Some(turns), permit: turns.acquire().await.ok() }
    }

    /// That of work which is bounded otherwise, or not at all.
    pub(super) fn free() -> Self {
        Self { turns: None, permit: None }
    }

    /// Waits for something while others have the turn, and for the next turn after it.
    pub(super) async fn aside<T>(&mut self, wait: impl Future<Output = T>) -> T {
        self.permit = None;
        let outcome = wait.await;
        if let Some(turns) = self.turns {
            self.permit = turns.acquire().await.ok();
        }
        outcome
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::Barrier;
    use tokio::task::JoinSet;

    use super::*;

    const TURNS: usize = 3;
    const PODS: usize = 20;

    #[tokio::test]
    async fn all_wait_at_once_and_only_so_many_work() {
        let turns = Arc::new(Semaphore::new(TURNS));
        let (at_work, most) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        // Opens once every pod waits: with a turn held while waiting none would ever come out.
        let all = Arc::new(Barrier::new(PODS));
        let mut tasks = JoinSet::new();
        for _ in 0..PODS {
            let (turns, all) = (Arc::clone(&turns), Arc::clone(&all));
            let (at_work, most) = (Arc::clone(&at_work), Arc::clone(&most));
            tasks.spawn(async move {
                let work = async || {
                    most.fetch_max(at_work.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                    tokio::task::yield_now().await;
                    at_work.fetch_sub(1, Ordering::SeqCst);
                };
                let mut turn = Turn::take(&turns).await;
                work().await;
                turn.aside(all.wait()).await;
                work().await;
            });
        }
        tasks.join_all().await;
        assert_eq!(most.load(Ordering::SeqCst), TURNS);
        assert_eq!(turns.available_permits(), TURNS, "every turn was given back");
    }

    #[tokio::test]
    async fn a_free_turn_takes_none() {
        let turns = Semaphore::new(1);
        let _held = Turn::take(&turns).await;
        assert_eq!(Turn::free().aside(async { 7 }).await, 7);
        assert_eq!(turns.available_permits(), 0);
    }
}
