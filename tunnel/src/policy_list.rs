//! By which list of policies the workload of a pod is judged.
//!
//! The control plane names a policy on a workload a moment before it sends the policy. Until it comes, for a bounded time,
//! the workload is judged by the list it had before: so new connections need not wait, and old ones are not cut for
//! nothing. Invariant: a list counts only while every policy it names is known; without such a list what names an unknown
//! policy is not allowed. One list is kept, the last that was known in full.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mesh::authorize::{authorize_listed, unknown_policies};
use mesh::{Connection, DenyReason, Judgement, Snapshot, Workload, authorize};

/// What is remembered for one pod.
pub(crate) struct PolicyList {
    /// How long an unknown name is borne.
    grace: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// The workload when all policies it lists were known last.
    settled: Option<Arc<Workload>>,
    /// Since when it has listed one that is not.
    unknown_since: Option<Instant>,
    reported: bool,
}

impl PolicyList {
    pub(crate) fn new(grace: Duration) -> Self {
        Self { grace, state: Mutex::default() }
    }

    /// Takes note of a new snapshot. Returns when to do so again even if no other comes.
    pub(crate) fn observe(&self, snapshot: &Snapshot, workload: &Arc<Workload>) -> Option<Instant> {
        let mut state = self.state();
        state.note(snapshot, workload);
        let end = state.unknown_since? + self.grace;
        if end > Instant::now() {
            return Some(end);
        }
        if !std::mem::replace(&mut state.reported, true) {
            let names: Vec<&str> = unknown_policies(snapshot, workload).map(|name| &**name).collect();
            tracing::warn!(
                workload = &*workload.uid,
                policies = names.join(" "),
                "the workload lists policies that are not known; it gets no new connections until they are"
            );
        }
        None
    }

    /// Judges a connection to the pod's workload.
    pub(crate) fn authorize(
        &self,
        snapshot: &Snapshot,
        workload: &Arc<Workload>,
        connection: &Connection<'_>,
    ) -> Judgement {
        let now = authorize(snapshot, workload, connection);
        match self.previous(snapshot, workload) {
            // What is denied by a policy that is known stays denied, whatever comes.
            Some(previous) if !matches!(now.known, Some(DenyReason::Explicit { .. })) => {
                authorize_listed(snapshot, workload, &previous.authorization_policies, connection)
            }
            _ => now,
        }
    }

    /// How long it is still worth waiting for what is unknown.
    pub(crate) fn patience(&self) -> Duration {
        self.state().unknown_since.map_or(self.grace, |since| self.grace.saturating_sub(since.elapsed()))
    }

    /// The workload with the list it is judged by, if that is not its present one.
    fn previous(&self, snapshot: &Snapshot, workload: &Arc<Workload>) -> Option<Arc<Workload>> {
        let mut state = self.state();
        state.note(snapshot, workload);
        if state.unknown_since?.elapsed() >= self.grace {
            return None;
        }
        state
            .settled
            .clone()
            .filter(|settled| settled.uid == workload.uid)
            .filter(|settled| unknown_policies(snapshot, settled).next().is_none())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn note(&mut self, snapshot: &Snapshot, workload: &Arc<Workload>) {
        if unknown_policies(snapshot, workload).next().is_some() {
            self.unknown_since.get_or_insert_with(Instant::now);
            return;
        }
        self.settled = Some(Arc::clone(workload));
        self.unknown_since = None;
        self.reported = false;
    }
}
