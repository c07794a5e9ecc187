//! Policy evaluation against the model, on policies and connections made up so that they often meet.

use std::collections::BTreeSet;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::strategy::ValueTree;
use proptest::test_runner::{Config, RngSeed, TestRunner};

use super::model::{self, Expected};
use crate::authorize::{Judgement, authorize_listed};
use crate::policy::{Action, Clause, Match, Rule, Scope, ServiceAccount, StringMatch};
use crate::testing::{ip, pod, snapshot, socket};
use crate::{Connection, DenyReason, Identity, Policy, Verdict, Workload, authorize};

pub(super) fn config(cases: u32) -> Config {
    Config { cases, rng_seed: RngSeed::Fixed(0x00c0_ffee), failure_persistence: None, ..Config::default() }
}

/// What is asked.
#[derive(Debug, Clone)]
struct Question {
    policies: Vec<Policy>,
    namespace: String,
    listed: Vec<String>,
    identity: Option<Identity>,
    source: IpAddr,
    destination: SocketAddr,
}

impl Question {
    fn connection(&self) -> Connection<'_> {
        Connection {
            source_identity: self.identity.as_ref(),
            source_ip: self.source,
            destination: self.destination,
        }
    }

    fn expected(&self) -> Expected {
        model::expect(&self.policies, &self.namespace, &self.listed, &self.connection())
    }

    fn answer(&self) -> Judgement {
        let mesh = snapshot([], [], self.policies.iter().cloned());
        let workload = Workload {
            namespace: self.namespace.as_str().into(),
            authorization_policies: self.listed.iter().map(|name| Arc::from(name.as_str())).collect(),
            ..pod("web", &["10.0.0.9"])
        };
        let judgement = authorize(&mesh, &workload, &self.connection());
        let by_list =
            authorize_listed(&mesh, &workload, &workload.authorization_policies, &self.connection());
        assert_eq!(judgement, by_list);
        judgement
    }
}

/// Mostly nothing, else one or two of these.
fn some<T: Clone + std::fmt::Debug + 'static>(values: Vec<T>) -> BoxedStrategy<Vec<T>> {
    prop_oneof![5 => Just(Vec::new()), 1 => vec(select(values), 1..3)].boxed()
}

fn strings(whole: &[&str]) -> Vec<StringMatch> {
    let halves = whole.iter().flat_map(|text| {
        let (first, last) = text.split_at(text.len() / 2);
        [
            StringMatch::Prefix(first.into()),
            StringMatch::Suffix(last.into()),
            StringMatch::Exact((*text).into()),
        ]
    });
    halves.chain([StringMatch::Presence, StringMatch::Prefix("".into())]).collect()
}

fn condition() -> impl Strategy<Value = Match> {
    let namespaces = || some(strings(&["team-a", "team-b"]));
    let principals = || some(strings(&["cluster.local/ns/team-a/sa/x", "other/ns/team-b/sa/y"]));
    let accounts = || {
        let account =
            |namespace: &str, name: &str| ServiceAccount { namespace: namespace.into(), name: name.into() };
        some(vec![account("team-a", "x"), account("team-a", "y"), account("team-b", "x")])
    };
    let ranges = || {
        let all =
            ["10.0.0.0/24", "10.0.0.0/31", "10.0.0.1/32", "0.0.0.0/0", "::/0", "fd00::/16", "fd00::1/128"];
        let mapped = ["::ffff:10.0.0.0/127", "::ffff:0.0.0.0/96", "::ffff:0:0/90"];
        some(all.iter().chain(&mapped).map(|range| range.parse().unwrap()).collect())
    };
    let ports = || some(vec![80_u16, 81]);
    let who = (namespaces(), namespaces(), principals(), principals(), accounts(), accounts());
    let what = (ranges(), ranges(), ranges(), ranges(), ports(), ports());
    (who, what).prop_map(|(who, what)| Match {
        namespaces: who.0,
        not_namespaces: who.1,
        principals: who.2,
        not_principals: who.3,
        service_accounts: who.4,
        not_service_accounts: who.5,
        source_ips: what.0,
        not_source_ips: what.1,
        destination_ips: what.2,
        not_destination_ips: what.3,
        destination_ports: what.4,
        not_destination_ports: what.5,
    })
}

fn rules() -> impl Strategy<Value = Vec<Rule>> {
    let clause = vec(condition(), 0..3).prop_map(|matches| Clause { matches });
    let rule = vec(clause, 0..3).prop_map(|clauses| Rule { clauses });
    vec(rule, 0..3)
}

fn policies() -> impl Strategy<Value = Vec<Policy>> {
    let scope = select(vec![Scope::Global, Scope::Namespace, Scope::WorkloadSelector]);
    let action = select(vec![Action::Allow, Action::Deny]);
    let namespace = select(vec!["team-a", "team-b"]);
    vec((namespace, scope, action, prop::bool::weighted(0.2), rules()), 0..5).prop_map(|all| {
        let numbered = all.into_iter().enumerate();
        numbered
            .map(|(n, (namespace, scope, action, dry_run, rules))| Policy {
                name: format!("p{n}").into(),
                namespace: namespace.into(),
                scope,
                action,
                dry_run,
                rules,
            })
            .collect()
    })
}

fn question() -> impl Strategy<Value = Question> {
    let names: Vec<String> =
        ["team-a", "team-b"].iter().flat_map(|ns| (0..3).map(move |n| format!("{ns}/p{n}"))).collect();
    let identity =
        (select(vec!["cluster.local", "other"]), select(vec!["team-a", "team-b"]), select(vec!["x", "y"]))
            .prop_map(|(domain, namespace, account)| Identity::new(domain, namespace, account));
    let sources = ["10.0.0.1", "10.0.0.9", "192.0.2.1", "fd00::1", "::ffff:10.0.0.1"].map(ip);
    let destinations = ["10.0.0.1:80", "10.0.0.9:81", "[fd00::1]:80", "[::ffff:10.0.0.9]:80"].map(socket);
    (
        policies(),
        select(vec!["team-a".to_owned(), "team-b".to_owned()]),
        vec(select(names), 0..3),
        prop::option::weighted(0.8, identity),
        select(sources.to_vec()),
        select(destinations.to_vec()),
    )
        .prop_map(|(policies, namespace, listed, identity, source, destination)| Question {
            policies,
            namespace,
            listed,
            identity,
            source,
            destination,
        })
}

/// Whether an answer is what the model says.
fn agree(expected: &Expected, answer: &Judgement) -> Result<(), String> {
    let not_allowed = !expected.allow.is_empty() && expected.allowing.is_empty();
    let known = match &answer.known {
        Some(DenyReason::Explicit { policy }) => expected.denying.contains(&**policy),
        Some(DenyReason::NotAllowed) => expected.denying.is_empty() && not_allowed,
        Some(DenyReason::UnknownPolicy { .. }) => false,
        None => expected.denying.is_empty() && !not_allowed,
    };
    let verdict = match &answer.verdict {
        Verdict::Deny(DenyReason::Explicit { policy }) => expected.denying.contains(&**policy),
        Verdict::Deny(DenyReason::UnknownPolicy { name }) => {
            expected.denying.is_empty() && expected.unknown.contains(&**name)
        }
        Verdict::Deny(DenyReason::NotAllowed) => {
            expected.denying.is_empty() && expected.unknown.is_empty() && not_allowed
        }
        Verdict::Allow => expected.denying.is_empty() && expected.unknown.is_empty() && !not_allowed,
    };
    let reported: BTreeSet<String> = answer.dry_run.iter().map(|dry| dry.policy.to_string()).collect();
    match (known, verdict, reported == expected.dry) {
        (true, true, true) => Ok(()),
        wrong => Err(format!("known, verdict, dry run as expected: {wrong:?}\n{expected:?}\n{answer:?}")),
    }
}

proptest! {
    #![proptest_config(config(4000))]

    #[test]
    fn the_evaluation_says_what_the_model_says(question in question()) {
        let agreed = agree(&question.expected(), &question.answer());
        prop_assert!(agreed.is_ok(), "{}", agreed.unwrap_err());
    }

    /// Taking a policy away that was listed can only refuse.
    #[test]
    fn a_policy_that_goes_missing_never_allows_what_was_denied(question in question(), which in any::<prop::sample::Index>()) {
        if question.policies.is_empty() {
            return Ok(());
        }
        let gone = which.index(question.policies.len());
        let mut without = question;
        let gone = without.policies.remove(gone);
        without.listed.push(gone.key());
        prop_assert_ne!(without.answer().verdict, Verdict::Allow);
    }

    /// What is only a dry run changes no verdict.
    #[test]
    fn dry_runs_change_nothing(question in question()) {
        let mut enforced = question.clone();
        enforced.policies.retain(|policy| !policy.dry_run);
        let missing = question.policies.iter().filter(|policy| policy.dry_run).map(Policy::key);
        let missing: BTreeSet<String> = missing.collect();
        enforced.listed.retain(|name| !missing.contains(name));
        prop_assert_eq!(question.answer().verdict, enforced.answer().verdict);
    }
}

/// The questions above are worth asking: every outcome is common among them.
#[test]
fn the_questions_have_all_kinds_of_answers() {
    let mut runner = TestRunner::new(config(1));
    let strategy = question();
    let mut counts = std::collections::BTreeMap::<&str, u32>::new();
    for _ in 0..2000 {
        let question = strategy.new_tree(&mut runner).unwrap().current();
        let answer = question.answer();
        let kind = match answer.verdict {
            Verdict::Allow if question.expected().allow.is_empty() => "allowed, nothing says otherwise",
            Verdict::Allow => "allowed by a policy",
            Verdict::Deny(DenyReason::Explicit { .. }) => "denied",
            Verdict::Deny(DenyReason::NotAllowed) => "not allowed",
            Verdict::Deny(DenyReason::UnknownPolicy { .. }) => "unknown",
        };
        *counts.entry(kind).or_default() += 1;
        if !answer.dry_run.is_empty() {
            *counts.entry("dry run").or_default() += 1;
        }
    }
    assert!(counts.len() == 6 && counts.values().all(|count| *count >= 60), "{counts:?}");
}
