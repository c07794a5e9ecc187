//! By which list of policies the workload of a pod is judged.
//!
//! The control plane names a policy on a workload a moment before it sends the policy. Until it comes, for a bounded time,
//! the workload is judged by the list it had before: so new connections need not wait, and old ones are not cut for
//! nothing. Invariant: a list counts only while every policy it names is known; without such a list what names an unknown
//! policy is not allowed. One list is kept, the last that was known in full.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mesh::authorize::{Considered, authorize_listed, explain_listed, unknown_policies};
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
        match self.instead(snapshot, workload, &now) {
            Some(listed) => authorize_listed(snapshot, workload, &listed.authorization_policies, connection),
            None => now,
        }
    }

    /// Judges as [`Self::authorize`] does, and tells what each policy said.
    pub(crate) fn explain(
        &self,
        snapshot: &Snapshot,
        workload: &Arc<Workload>,
        connection: &Connection<'_>,
    ) -> (Judgement, Vec<Considered>) {
        let now = explain_listed(snapshot, workload, &workload.authorization_policies, connection);
        match self.instead(snapshot, workload, &now.0) {
            Some(listed) => explain_listed(snapshot, workload, &listed.authorization_policies, connection),
            None => now,
        }
    }

    /// The workload with the list that counts in the place of its present one, by which it was judged so.
    fn instead(
        &self,
        snapshot: &Snapshot,
        workload: &Arc<Workload>,
        now: &Judgement,
    ) -> Option<Arc<Workload>> {
        let previous = self.previous(snapshot, workload)?;
        // What is denied by a policy that is known stays denied, whatever comes.
        (!matches!(now.known, Some(DenyReason::Explicit { .. }))).then_some(previous)
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

#[cfg(test)]
mod tests {
    use mesh::policy::{Action, Rule, Scope};
    use mesh::{Policy, Verdict};

    use super::*;

    const LONG: Duration = Duration::from_secs(3600);

    /// A policy for those that list it, which matches everything.
    fn policy(name: &str, action: Action) -> Policy {
        Policy {
            name: name.into(),
            namespace: "ns".into(),
            scope: Scope::WorkloadSelector,
            action,
            dry_run: false,
            rules: vec![Rule::default()],
        }
    }

    fn listing(names: &[&str]) -> Arc<Workload> {
        let authorization_policies = names.iter().map(|name| format!("ns/{name}").into()).collect();
        Arc::new(Workload { uid: "w".into(), authorization_policies, ..Workload::default() })
    }

    fn knowing(policies: &[(&str, Action)]) -> Snapshot {
        let mut editor = Snapshot::default().edit();
        policies.iter().for_each(|(name, action)| editor.insert_policy(policy(name, *action)));
        editor.finish()
    }

    fn told(list: &PolicyList, snapshot: &Snapshot, workload: &Arc<Workload>) -> String {
        let connection = Connection {
            source_identity: None,
            source_ip: "10.0.0.1".parse().unwrap(),
            destination: "10.0.0.2:80".parse().unwrap(),
        };
        match list.authorize(snapshot, workload, &connection).verdict {
            Verdict::Allow => "allowed".into(),
            Verdict::Deny(DenyReason::Explicit { policy }) => format!("denied by {policy}"),
            Verdict::Deny(DenyReason::NotAllowed) => "not allowed".into(),
            Verdict::Deny(DenyReason::UnknownPolicy { name }) => format!("unknown {name}"),
        }
    }

    #[test]
    fn by_which_list_a_workload_is_judged() {
        use Action::{Allow, Deny};
        type Known = &'static [(&'static str, Action)];
        // Name, what was known and listed at first (nothing: never seen), what is now, outcome within the grace and after it.
        type Row = (
            &'static str,
            Option<(Known, &'static [&'static str])>,
            (Known, &'static [&'static str]),
            [&'static str; 2],
        );
        let rows: &[Row] = &[
            ("nothing unknown", Some((&[], &[])), (&[("a", Allow)], &["a"]), ["allowed", "allowed"]),
            ("seen for the first time", None, (&[], &["new"]), ["unknown ns/new", "unknown ns/new"]),
            ("none before", Some((&[], &[])), (&[], &["new"]), ["allowed", "unknown ns/new"]),
            (
                "an ALLOW before that stays",
                Some((&[("a", Allow)], &["a"])),
                (&[("a", Allow)], &["a", "new"]),
                ["allowed", "unknown ns/new"],
            ),
            (
                "a DENY before that is listed no more",
                Some((&[("d", Deny)], &["d"])),
                (&[("d", Deny)], &["new"]),
                ["denied by ns/d", "unknown ns/new"],
            ),
            (
                "a DENY before that is gone: nothing is left to judge by",
                Some((&[("d", Deny)], &["d"])),
                (&[], &["new"]),
                ["unknown ns/new", "unknown ns/new"],
            ),
            (
                "the same list, whose policy is gone",
                Some((&[("a", Allow)], &["a"])),
                (&[], &["a"]),
                ["unknown ns/a", "unknown ns/a"],
            ),
            (
                "a DENY that came with the unknown one",
                Some((&[], &[])),
                (&[("d", Deny)], &["d", "new"]),
                ["denied by ns/d", "denied by ns/d"],
            ),
            (
                "an ALLOW that came with the unknown one",
                Some((&[("d", Deny)], &["d"])),
                (&[("d", Deny), ("a", Allow)], &["a", "new"]),
                ["denied by ns/d", "unknown ns/new"],
            ),
        ];
        for (name, before, (known, listed), expected) in rows {
            for (grace, expected) in [LONG, Duration::ZERO].into_iter().zip(expected) {
                let list = PolicyList::new(grace);
                if let Some((known, listed)) = before {
                    list.observe(&knowing(known), &listing(listed));
                }
                assert_eq!(told(&list, &knowing(known), &listing(listed)), *expected, "{name}, {grace:?}");
            }
        }
    }

    #[test]
    fn the_grace_begins_with_the_first_unknown_name_and_no_later_one_extends_it() {
        let list = PolicyList::new(LONG);
        let nothing = knowing(&[]);
        list.observe(&nothing, &listing(&[]));
        let end = list.observe(&nothing, &listing(&["one"]));
        assert!(end.is_some());
        assert_eq!(list.observe(&nothing, &listing(&["one", "two"])), end);
        assert_eq!(list.observe(&nothing, &listing(&["three"])), end);
        // Once all is known, the next one has a grace of its own.
        assert_eq!(list.observe(&knowing(&[("three", Action::Deny)]), &listing(&["three"])), None);
        assert!(list.observe(&nothing, &listing(&["four"])) > end);
    }

    #[test]
    fn another_workload_is_not_judged_by_this_ones_list() {
        let list = PolicyList::new(LONG);
        let nothing = knowing(&[]);
        list.observe(&nothing, &listing(&[]));
        let other = Arc::new(Workload { uid: "other".into(), ..(*listing(&["new"])).clone() });
        assert_eq!(told(&list, &nothing, &other), "unknown ns/new");
    }
}
