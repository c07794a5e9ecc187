//! Where the current snapshot is kept.
//!
//! Invariant: a reader takes no lock and is never held up by a writer; it sees one whole snapshot. Writers that
//! start from the current snapshot take turns, so none undoes what another did.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use arc_swap::ArcSwap;

use crate::snapshot::Snapshot;

type Subscriber = Arc<dyn Fn() + Send + Sync>;

/// Holds the current [`Snapshot`] and tells subscribers of each new one.
pub struct Store {
    current: ArcSwap<Snapshot>,
    writer: Mutex<()>,
    subscribers: RwLock<Vec<Subscriber>>,
}

impl Store {
    /// A store of an empty mesh.
    pub fn new() -> Self {
        Self {
            current: ArcSwap::from_pointee(Snapshot::default()),
            writer: Mutex::new(()),
            subscribers: RwLock::new(Vec::new()),
        }
    }

    /// The current snapshot.
    pub fn load(&self) -> Arc<Snapshot> {
        self.current.load_full()
    }

    /// Replaces the current snapshot and tells subscribers.
    pub fn publish(&self, snapshot: Snapshot) {
        self.update(|_| Some(snapshot));
    }

    /// Makes the next snapshot from the current one; `None` leaves all as it is and tells nobody. Returns
    /// whether there was a next one.
    pub fn update(&self, next: impl FnOnce(&Snapshot) -> Option<Snapshot>) -> bool {
        {
            let _turn = self.writer.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(snapshot) = next(&self.current.load()) else { return false };
            self.current.store(Arc::new(snapshot));
        }
        let subscribers = self.subscribers.read().unwrap_or_else(PoisonError::into_inner).clone();
        for subscriber in subscribers {
            subscriber();
        }
        true
    }

    /// Has a function called after each publish, on the publisher's thread. It must be quick, such as a wake-up.
    pub fn subscribe(&self, subscriber: Box<dyn Fn() + Send + Sync>) {
        self.subscribers.write().unwrap_or_else(PoisonError::into_inner).push(Arc::from(subscriber));
    }
}

impl Default for Store {
    fn default() -> Self {
        Self::new()
    }
}

impl fmt::Debug for Store {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Store").field("current", &self.current).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;
    use crate::workload::Workload;

    #[test]
    fn tells_of_each_publish_and_of_nothing_else() {
        let store = Store::new();
        let seen = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&seen);
        store.subscribe(Box::new(move || {
            counter.fetch_add(1, Ordering::Relaxed);
        }));
        store.publish(Snapshot::default());
        assert!(!store.update(|_| None));
        assert_eq!(seen.load(Ordering::Relaxed), 1);
    }

    #[test]
    fn a_subscriber_sees_what_was_published() {
        let store = Arc::new(Store::new());
        let seen = Arc::new(AtomicUsize::new(0));
        let (inner, counter) = (Arc::clone(&store), Arc::clone(&seen));
        store.subscribe(Box::new(move || counter.store(inner.load().workloads().count(), Ordering::Relaxed)));
        let mut editor = store.load().edit();
        editor.insert_workload(Workload { uid: "a".into(), ..Workload::default() });
        store.publish(editor.finish());
        assert_eq!(seen.load(Ordering::Relaxed), 1);
    }
}
