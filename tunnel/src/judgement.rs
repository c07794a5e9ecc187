//! Asking policy about connections: about new ones with patience for what is on its way, about live ones again after every
//! change, on a thread of its own, never on a worker.
//!
//! Invariant: what is not known, be it a policy or the workload itself, never allows a connection and never cuts one.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::time::Instant;

use mesh::{DenyReason, Judgement, Snapshot, Verdict, Workload, authorize};

use crate::connections::{ConnectionInfo, Entry};
use crate::error::ConnectionError;
use crate::scope::{Shared, own_workload};
use crate::served::Served;
use crate::telemetry::Metrics;

/// For whom an inbound connection is judged.
#[derive(Clone)]
pub(crate) struct Judged {
    pub(crate) served: Arc<Served>,
    /// The pod's workload, as it was when the connection came.
    pub(crate) own: Arc<Workload>,
}

/// Why a connection cannot be decided upon now.
enum Undecided {
    Policy(DenyReason),
    WorkloadGone,
}

/// Whether the connection may go on.
///
/// While all that stands against it is that something is unknown it waits, for a bounded time; then it is refused.
pub(crate) async fn judge(shared: &Shared, judged: &Judged, entry: &Entry) -> Result<(), ConnectionError> {
    let first = judged.decide(&shared.metrics, &shared.store.load(), entry.info());
    let mut undecided = match first {
        Ok(outcome) => return outcome,
        Err(undecided) => undecided,
    };
    let patience = match undecided {
        Undecided::Policy(_) => judged.served.policies.patience(),
        Undecided::WorkloadGone => shared.config.timeouts.unknown_policy,
    };
    let settled =
        shared.wait_for(patience, |snapshot| match judged.decide(&shared.metrics, snapshot, entry.info()) {
            Ok(outcome) => Some(outcome),
            Err(still) => {
                undecided = still;
                None
            }
        });
    match settled.await {
        Some(outcome) => outcome,
        None => Err(match undecided {
            Undecided::Policy(reason) => ConnectionError::Denied(reason),
            Undecided::WorkloadGone => ConnectionError::WorkloadGone,
        }),
    }
}

impl Judged {
    fn decide(
        &self,
        metrics: &Metrics,
        snapshot: &Snapshot,
        connection: &ConnectionInfo,
    ) -> Result<Result<(), ConnectionError>, Undecided> {
        let (judgement, gone) = self.judgement(snapshot, connection);
        match judgement.verdict {
            Verdict::Deny(reason @ DenyReason::UnknownPolicy { .. }) => {
                return Err(Undecided::Policy(reason));
            }
            Verdict::Allow if gone => return Err(Undecided::WorkloadGone),
            Verdict::Allow | Verdict::Deny(_) => {}
        }
        for matched in &judgement.dry_run {
            metrics.dry_runs.count(matched);
            tracing::info!(
                policy = &*matched.policy,
                action = ?matched.action,
                src.addr = %connection.source,
                dst.addr = %connection.destination,
                "dry-run policy matched"
            );
        }
        Ok(match judgement.verdict {
            Verdict::Allow => Ok(()),
            Verdict::Deny(reason) => Err(ConnectionError::Denied(reason)),
        })
    }

    /// The judgement of a snapshot, and whether it knows the workload no longer; it is judged as it was then.
    fn judgement(&self, snapshot: &Snapshot, connection: &ConnectionInfo) -> (Judgement, bool) {
        match snapshot.workload(&self.own.uid) {
            Some(now) => (self.served.policies.authorize(snapshot, now, &connection.subject()), false),
            None => (authorize(snapshot, &self.own, &connection.subject()), true),
        }
    }

    /// Whether what is known forbids a connection that is there.
    pub(crate) fn forbids(&self, snapshot: &Snapshot, connection: &ConnectionInfo) -> bool {
        self.judgement(snapshot, connection).0.known.is_some()
    }
}

/// How much judging gives way to the data path on the same CPU: a quarter of it is left.
const NICENESS: i32 = 5;

/// Judges live connections after every publish, for as long as the data path exists. Publishes that come while one is
/// being worked on are taken together. Now and then it also forgets the labels of workloads that are gone.
pub(crate) fn follow_changes(shared: &Arc<Shared>) -> io::Result<()> {
    let (wake, changes) = sync_channel::<()>(1);
    let weak = Arc::downgrade(shared);
    // What is unused is found within half as long again.
    let period = shared.config.label_release / 2;
    std::thread::Builder::new().name("culvert-judge".into()).spawn(move || {
        if let Err(error) = linux::scheduling::be_nice(NICENESS) {
            tracing::debug!(%error, "connections are judged beside the data path, not behind it");
        }
        let (mut due, mut sweep) = (None, Instant::now() + period);
        while wait(&changes, due.map_or(sweep, |due: Instant| due.min(sweep))) {
            let Some(shared) = weak.upgrade() else { return };
            due = judge_all(&shared);
            // By now the workers have moved on to the new snapshot, and here is time to take the old one apart.
            shared.store.sweep();
            if sweep <= Instant::now() {
                shared.metrics.release(shared.config.label_release, &shared.store.load());
                sweep = Instant::now() + period;
            }
        }
    })?;
    shared.store.subscribe(Box::new(move || {
        // Full means that a judging is due anyway, and it will see this change.
        let _ = wake.try_send(());
    }));
    Ok(())
}

/// Waits for a change, or until something is due without; `false` when none will come any more.
fn wait(changes: &Receiver<()>, due: Instant) -> bool {
    let left = due.saturating_duration_since(Instant::now());
    changes.recv_timeout(left) != Err(RecvTimeoutError::Disconnected)
}

/// Returns when time alone will change something.
fn judge_all(shared: &Shared) -> Option<Instant> {
    let snapshot = shared.store.load();
    let observe =
        |served: &Arc<Served>| served.policies.observe(&snapshot, &own_workload(&snapshot, &served.pod)?);
    let due = shared.pods().iter().filter_map(observe).min();
    shared.connections.cut_if(|judged, connection| judged.forbids(&snapshot, connection));
    due
}
