//! Whether a connection to a workload is allowed.
//!
//! Candidates are the policies of the workload's namespace, the global ones and those the workload lists by
//! name. Any DENY that matches denies; else, if there is any ALLOW policy, one must match. Dry-run policies are
//! evaluated and reported, and count for nothing.
//!
//! Invariant: nothing that is unknown or malformed ever widens access. A listed name that no policy answers to
//! refuses the connection. A control plane may name a policy a moment before it sends it: a caller that wants
//! to bridge that judges by the list the workload had before, with [`authorize_listed`], and learns from
//! [`unknown_policies`] when it has to. One that judges what is there already goes by [`Judgement::known`].

mod evaluate;

#[cfg(test)]
mod tests;

use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use crate::identity::Identity;
use crate::policy::{Action, Policy};
use crate::snapshot::Snapshot;
use crate::workload::Workload;

/// What is judged.
#[derive(Clone, Copy, Debug)]
pub struct Connection<'a> {
    /// Who the client proved to be; none if it came in plaintext.
    pub source_identity: Option<&'a Identity>,
    /// The client's address.
    pub source_ip: IpAddr,
    /// The address and the port of the workload it connects to.
    pub destination: SocketAddr,
}

/// The outcome for one connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Judgement {
    /// Whether it may go on.
    pub verdict: Verdict,
    /// What the policies that are known have against it, whether or not another one is unknown.
    pub known: Option<DenyReason>,
    /// The dry-run policies that matched it.
    pub dry_run: Vec<DryRunMatch>,
}

/// Whether a connection may go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It may.
    Allow,
    /// It may not.
    Deny(DenyReason),
}

/// Why a connection may not go on.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DenyReason {
    /// A DENY policy matched.
    Explicit {
        /// Its key, `namespace/name`.
        policy: Arc<str>,
    },
    /// There are ALLOW policies and none matched.
    NotAllowed,
    /// The workload lists a policy that is not known.
    UnknownPolicy {
        /// The name it lists, `namespace/name`.
        name: Arc<str>,
    },
}

/// A dry-run policy that matched.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DryRunMatch {
    /// Its key, `namespace/name`.
    pub policy: Arc<str>,
    /// What it would have meant.
    pub action: Action,
}

/// What one policy said of a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Considered {
    /// Its key, `namespace/name`.
    pub policy: Arc<str>,
    /// What a match means.
    pub action: Action,
    /// Whether it counts for nothing.
    pub dry_run: bool,
    /// The first of its rules that matched, counted from 0; none if none did.
    pub rule: Option<usize>,
}

impl fmt::Display for DenyReason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Explicit { policy } => write!(f, "explicitly denied by: {policy}"),
            Self::NotAllowed => f.write_str("allow policies exist, but none allowed"),
            Self::UnknownPolicy { name } => {
                write!(f, "policy {name} applies to the workload but is not known yet")
            }
        }
    }
}

/// Judges a connection to a workload.
pub fn authorize(snapshot: &Snapshot, workload: &Workload, connection: &Connection<'_>) -> Judgement {
    authorize_listed(snapshot, workload, &workload.authorization_policies, connection)
}

/// Judges a connection to a workload as if it listed these policies (`namespace/name`) and no others.
pub fn authorize_listed(
    snapshot: &Snapshot,
    workload: &Workload,
    listed: &[Arc<str>],
    connection: &Connection<'_>,
) -> Judgement {
    count(snapshot, workload, listed, connection, Tally::default()).0
}

/// Judges as [`authorize_listed`] does, and tells what each policy said of the connection, in the order in which they were asked.
pub fn explain_listed(
    snapshot: &Snapshot,
    workload: &Workload,
    listed: &[Arc<str>],
    connection: &Connection<'_>,
) -> (Judgement, Vec<Considered>) {
    let tally = Tally { considered: Some(Vec::new()), ..Tally::default() };
    count(snapshot, workload, listed, connection, tally)
}

fn count(
    snapshot: &Snapshot,
    workload: &Workload,
    listed: &[Arc<str>],
    connection: &Connection<'_>,
    mut tally: Tally,
) -> (Judgement, Vec<Considered>) {
    let principal = connection.source_identity.map(Identity::principal);
    let subject = evaluate::Subject::new(connection, principal.as_deref());
    for (key, policy) in snapshot.policies_for_namespace(&workload.namespace) {
        tally.count(key, policy, &subject);
    }
    let mut unknown = None;
    for name in listed {
        match snapshot.policy(name) {
            Some(policy) => tally.count(name, policy, &subject),
            None => unknown = unknown.or(Some(name)),
        }
    }
    let known = match tally.denied_by {
        Some(policy) => Some(DenyReason::Explicit { policy }),
        None => (tally.allow_exists && !tally.allowed).then_some(DenyReason::NotAllowed),
    };
    let verdict = match (&known, unknown) {
        // The unknown one may be what allows it.
        (None | Some(DenyReason::NotAllowed), Some(name)) => {
            Verdict::Deny(DenyReason::UnknownPolicy { name: Arc::clone(name) })
        }
        (Some(reason), _) => Verdict::Deny(reason.clone()),
        (None, None) => Verdict::Allow,
    };
    (Judgement { verdict, known, dry_run: tally.dry_run }, tally.considered.unwrap_or_default())
}

/// The names of policies that a workload lists and that are not known.
pub fn unknown_policies<'a>(
    snapshot: &'a Snapshot,
    workload: &'a Workload,
) -> impl Iterator<Item = &'a Arc<str>> {
    workload.authorization_policies.iter().filter(|name| snapshot.policy(name).is_none())
}

/// What the policies said so far.
#[derive(Default)]
struct Tally {
    denied_by: Option<Arc<str>>,
    allow_exists: bool,
    allowed: bool,
    dry_run: Vec<DryRunMatch>,
    /// What each of them said, if somebody wants to know.
    considered: Option<Vec<Considered>>,
}

impl Tally {
    fn count(&mut self, key: &Arc<str>, policy: &Policy, subject: &evaluate::Subject<'_>) {
        let rule = subject.matching_rule(policy);
        let matched = rule.is_some();
        if let Some(considered) = &mut self.considered {
            let (policy, action, dry_run) = (Arc::clone(key), policy.action, policy.dry_run);
            considered.push(Considered { policy, action, dry_run, rule });
        }
        if policy.dry_run {
            if matched {
                self.dry_run.push(DryRunMatch { policy: Arc::clone(key), action: policy.action });
            }
            return;
        }
        match policy.action {
            Action::Deny if matched && self.denied_by.is_none() => self.denied_by = Some(Arc::clone(key)),
            Action::Deny => {}
            Action::Allow => {
                self.allow_exists = true;
                self.allowed |= matched;
            }
        }
    }
}
