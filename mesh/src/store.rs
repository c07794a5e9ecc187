//! Where the current snapshot is kept.
//!
//! Invariant: a reader takes no lock and is never held up by a writer; it sees one whole snapshot. Writers that
//! start from the current snapshot take turns, so none undoes what another did. A snapshot of a large mesh takes a while to
//! be taken apart: that is never left to a reader, for what a reader may still hold is kept until nobody does.

use std::fmt;
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use arc_swap::ArcSwap;

use crate::snapshot::Snapshot;

type Subscriber = Arc<dyn Fn() + Send + Sync>;

/// Holds the current [`Snapshot`] and tells subscribers of each new one.
pub struct Store {
    current: ArcSwap<Snapshot>,
    /// Snapshots that are no longer current but were held by readers when they ceased to be. Locked by the writer whose
    /// turn it is.
    retired: Mutex<Vec<Arc<Snapshot>>>,
    subscribers: RwLock<Vec<Subscriber>>,
}

impl Store {
    /// A store of an empty mesh.
    pub fn new() -> Self {
        Self {
            current: ArcSwap::from_pointee(Snapshot::default()),
            retired: Mutex::new(Vec::new()),
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
            let mut retired = self.retired.lock().unwrap_or_else(PoisonError::into_inner);
            let Some(snapshot) = next(&self.current.load_full()) else { return false };
            retired.push(self.current.swap(Arc::new(snapshot)));
            release(&mut retired);
        }
        let subscribers = self.subscribers.read().unwrap_or_else(PoisonError::into_inner).clone();
        for subscriber in subscribers {
            subscriber();
        }
        true
    }

    /// Takes apart, on the calling thread, snapshots that readers held when the next one came and hold no longer. Every
    /// update does this too; it is for a thread that may take its time, some time after an update. It does not wait.
    pub fn sweep(&self) {
        if let Ok(mut retired) = self.retired.try_lock() {
            release(&mut retired);
        }
    }

    /// Has a function called after each publish, on the publisher's thread. It must be quick, such as a wake-up.
    pub fn subscribe(&self, subscriber: Box<dyn Fn() + Send + Sync>) {
        self.subscribers.write().unwrap_or_else(PoisonError::into_inner).push(Arc::from(subscriber));
    }
}

/// Drops what nobody else holds. Of what is no longer current nobody gets hold anew.
fn release(retired: &mut Vec<Arc<Snapshot>>) {
    retired.retain(|snapshot| Arc::strong_count(snapshot) > 1);
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

    #[test]
    fn the_last_reader_of_a_snapshot_is_not_the_one_that_takes_it_apart() {
        let store = Store::new();
        let insert = |uid: &str| {
            store.update(|current| {
                let mut editor = current.edit();
                editor.insert_workload(Workload { uid: uid.into(), ..Workload::default() });
                Some(editor.finish())
            })
        };
        insert("a");
        let held = store.load();
        let weak = Arc::downgrade(&held);
        store.publish(Snapshot::default());
        drop(held);
        assert_eq!(weak.strong_count(), 1, "the store holds it still");
        store.sweep();
        assert_eq!(weak.strong_count(), 0);
        // One that nobody reads goes at once.
        insert("b");
        let weak = Arc::downgrade(&store.load());
        insert("c");
        assert_eq!(weak.strong_count(), 0);
    }
}
