//! The label sets of the traffic metrics: how many there may be, and how long each stays.
//!
//! Peers make names up and pods come and go, so no label set may stay for good. Invariant: there are never more than the
//! limit; one that is held by a connection stays; one that nobody has used for a while, and that names a workload which is
//! gone from the mesh, goes. Dashboards see that as a counter that ends.

use std::collections::{HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mesh::Snapshot;
use prometheus_client::metrics::counter::Counter;

use super::labels::Labels;
use super::party::Party;

/// The label sets there are.
#[derive(Debug)]
pub(super) struct Known {
    limit: usize,
    sets: Mutex<HashMap<Labels, Use>>,
    /// Connections for whose labels there was no room.
    pub(super) unlabelled: Counter,
}

#[derive(Debug)]
struct Use {
    connections: usize,
    /// When the last connection let go of it, or when it was last found to be worth keeping.
    since: Instant,
}

/// A connection's hold on its label set.
#[derive(Debug)]
pub(super) struct Held {
    known: Arc<Known>,
    labels: Labels,
}

impl Known {
    pub(super) fn new(limit: usize) -> Self {
        Self { limit, sets: Mutex::default(), unlabelled: Counter::default() }
    }

    /// Holds a label set, unless it is a new one and there are too many.
    pub(super) fn hold(self: &Arc<Self>, labels: &Labels) -> Option<Held> {
        let mut sets = self.sets();
        let room = sets.len() < self.limit;
        match sets.get_mut(labels) {
            Some(used) => used.connections += 1,
            None if room => {
                sets.insert(labels.clone(), Use { connections: 1, since: Instant::now() });
            }
            None => {
                drop(sets);
                self.unlabelled.inc();
                return None;
            }
        }
        Some(Held { known: Arc::clone(self), labels: labels.clone() })
    }

    /// Takes out what nobody has used for `unused` and what names a workload that is gone, telling `forget` of each.
    pub(super) fn release(&self, unused: Duration, snapshot: &Snapshot, forget: impl Fn(&Labels)) {
        let old = |used: &Use| used.connections == 0 && used.since.elapsed() >= unused;
        if !self.sets().values().any(old) {
            return;
        }
        let there: HashSet<Party> = snapshot.workloads().map(|workload| Party::of(workload, None)).collect();
        // Held throughout, so that nobody takes hold of what is being forgotten.
        self.sets().retain(|labels, used| {
            if !old(used) {
                return true;
            }
            let stays =
                labels.parties().into_iter().all(|party| party.is_unknown() || there.contains(&party));
            if stays {
                used.since = Instant::now();
            } else {
                forget(labels);
            }
            stays
        });
    }

    fn sets(&self) -> MutexGuard<'_, HashMap<Labels, Use>> {
        self.sets.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        if let Some(used) = self.known.sets().get_mut(&self.labels) {
            used.connections = used.connections.saturating_sub(1);
            used.since = Instant::now();
        }
    }
}
