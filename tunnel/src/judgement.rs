//! Asking policy about a new connection, with patience for policies that are on their way.

use mesh::{DenyReason, Snapshot, Verdict};

use crate::connections::Entry;
use crate::error::ConnectionError;
use crate::scope::Shared;

/// Whether the connection may go on.
///
/// The control plane names a policy on a workload a moment before it sends the policy itself. While that is
/// all that stands against the connection it waits, for a bounded time; then it is refused.
pub(crate) async fn judge(shared: &Shared, entry: &Entry) -> Result<(), ConnectionError> {
    let limit = shared.config.timeouts.unknown_policy;
    let settled = shared.wait_for(limit, |snapshot| match verdict(snapshot, entry) {
        Verdict::Deny(DenyReason::UnknownPolicy { .. }) => None,
        verdict => Some(verdict),
    });
    let verdict = match settled.await {
        Some(verdict) => verdict,
        None => verdict(&shared.store.load(), entry),
    };
    match verdict {
        Verdict::Allow => Ok(()),
        Verdict::Deny(reason) => Err(ConnectionError::Denied(reason)),
    }
}

/// The verdict of a snapshot; a workload that has just gone from it is judged by nothing but its own absence,
/// and the application's answer.
fn verdict(snapshot: &Snapshot, entry: &Entry) -> Verdict {
    let Some(workload) = snapshot.workload(&entry.info().workload) else { return Verdict::Allow };
    let judgement = mesh::authorize(snapshot, workload, &entry.info().subject());
    for matched in &judgement.dry_run {
        tracing::info!(
            policy = &*matched.policy,
            action = ?matched.action,
            src.addr = %entry.info().source,
            dst.addr = %entry.info().destination,
            "dry-run policy matched"
        );
    }
    judgement.verdict
}
