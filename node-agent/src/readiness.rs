//! What the agent still waits for before it is ready.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex, PoisonError};

/// The set of pending tasks; ready when it is empty.
#[derive(Clone, Debug, Default)]
pub(crate) struct Readiness {
    pending: Arc<Mutex<BTreeSet<&'static str>>>,
}

/// One task; dropping it marks it as done.
#[derive(Debug)]
pub(crate) struct Pending {
    name: &'static str,
    readiness: Readiness,
}

impl Readiness {
    /// Holds readiness back until the returned value is dropped.
    pub(crate) fn wait_for(&self, name: &'static str) -> Pending {
        self.with(|pending| pending.insert(name));
        Pending { name, readiness: self.clone() }
    }

    /// The tasks that are not done.
    pub(crate) fn pending(&self) -> Vec<&'static str> {
        self.with(|pending| pending.iter().copied().collect())
    }

    fn with<T>(&self, work: impl FnOnce(&mut BTreeSet<&'static str>) -> T) -> T {
        work(&mut self.pending.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Drop for Pending {
    fn drop(&mut self) {
        self.readiness.with(|pending| pending.remove(self.name));
        tracing::info!(task = self.name, pending = ?self.readiness.pending(), "start-up task done");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ready_when_the_last_task_is_done() {
        let readiness = Readiness::default();
        let (a, b) = (readiness.wait_for("a"), readiness.wait_for("b"));
        assert_eq!(readiness.pending(), ["a", "b"]);
        drop(a);
        assert_eq!(readiness.pending(), ["b"]);
        drop(b);
        assert!(readiness.pending().is_empty());
    }
}
