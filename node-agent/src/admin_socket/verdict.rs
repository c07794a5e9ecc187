//! What policy says of a connection, as it is shown.

use std::io;
use std::net::{IpAddr, SocketAddr};

use mesh::policy::Action;
use mesh::{Connection, Identity, Verdict};
use protocols::admin::PolicyQuestion;
use serde::{Deserialize, Serialize};
use tunnel::trace::Judged;

use super::protocol::Answer;
use super::{Subjects, Teller, find};

/// Policies that are named; those that matched come first.
const MAX_POLICIES: usize = 64;

/// One policy's word.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PolicyLine {
    /// `namespace/name`.
    pub(crate) policy: String,
    /// `allow` or `deny`.
    pub(crate) action: String,
    /// Whether it counts for nothing.
    pub(crate) dry_run: bool,
    /// The first of its rules that matched, counted from 0.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) rule: Option<usize>,
}

/// The outcome for one connection.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct VerdictView {
    /// The server's pod.
    pub(crate) to: String,
    /// Its address and port.
    pub(crate) destination: SocketAddr,
    /// Who the client proves to be; none if it comes in plaintext.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) identity: Option<String>,
    /// The client's address; none if nothing is known of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) source: Option<IpAddr>,
    /// Whether it may go on.
    pub(crate) allowed: bool,
    /// What decided, in words.
    pub(crate) because: String,
    /// What was asked.
    pub(crate) policies: Vec<PolicyLine>,
}

/// Answers a question.
pub(super) fn tell(subjects: &Subjects, asked: &PolicyQuestion, send: &mut Teller<'_>) -> io::Result<()> {
    send(match answer(subjects, asked) {
        Ok(view) => Answer::Verdict(view),
        Err(why) => Answer::Refused { why },
    })
}

fn answer(subjects: &Subjects, asked: &PolicyQuestion) -> Result<VerdictView, String> {
    let snapshot = subjects.store.load();
    let identity = asked.from.as_deref().map(str::parse::<Identity>).transpose();
    let identity = identity.map_err(|error| error.to_string())?;
    let workload = find::workload(&snapshot, subjects.tunnel.network(), &asked.to)?;
    let like = asked.to.parse().ok().or(asked.source);
    let address = find::address(&workload, like)
        .ok_or_else(|| format!("{} has no address that is known", find::pod_of(&workload)))?;
    let source = asked.source.or_else(|| {
        let is_it = |other: &&std::sync::Arc<mesh::Workload>| Some(other.identity()) == identity;
        identity.as_ref()?;
        find::address(snapshot.workloads().find(is_it)?, Some(address))
    });
    let destination = SocketAddr::new(address, asked.port);
    let unspecified = if address.is_ipv4() { IpAddr::from([0; 4]) } else { IpAddr::from([0; 16]) };
    let connection = Connection {
        source_identity: identity.as_ref(),
        source_ip: source.unwrap_or(unspecified),
        destination,
    };
    let judged = subjects.tunnel.judge(&workload, &connection);
    Ok(view(find::pod_of(&workload), &connection, source, &judged))
}

/// A judgement as it is shown.
pub(super) fn view(
    to: String,
    connection: &Connection<'_>,
    source: Option<IpAddr>,
    judged: &Judged,
) -> VerdictView {
    let line = |said: &mesh::authorize::Considered| PolicyLine {
        policy: said.policy.to_string(),
        action: match said.action {
            Action::Allow => "allow".to_owned(),
            Action::Deny => "deny".to_owned(),
        },
        dry_run: said.dry_run,
        rule: said.rule,
    };
    let mut policies: Vec<PolicyLine> = judged.considered.iter().map(line).collect();
    // Those that decided first; in the order of their keys otherwise.
    policies.sort_by_key(|line| (line.rule.is_none(), line.dry_run, line.action != "deny"));
    let because = because(&judged.judgement.verdict, &policies);
    policies.truncate(MAX_POLICIES);
    VerdictView {
        to,
        destination: connection.destination,
        identity: connection.source_identity.map(ToString::to_string),
        source,
        allowed: judged.judgement.verdict == Verdict::Allow,
        because,
        policies,
    }
}

fn because(verdict: &Verdict, policies: &[PolicyLine]) -> String {
    let decisive = |action: &str| {
        let found =
            policies.iter().find(|line| !line.dry_run && line.action == action && line.rule.is_some())?;
        Some(format!("rule {} of {}", found.rule?, found.policy))
    };
    match verdict {
        Verdict::Deny(reason) => match decisive("deny") {
            Some(rule) => format!("{reason} ({rule})"),
            None => reason.to_string(),
        },
        Verdict::Allow => match decisive("allow") {
            Some(rule) => format!("allowed by {rule}"),
            None => "no ALLOW policy applies, and no DENY policy matches".to_owned(),
        },
    }
}
