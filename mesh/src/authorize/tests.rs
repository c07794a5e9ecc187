use super::*;
use crate::policy::{Clause, Match, Rule, Scope, ServiceAccount, StringMatch};
use crate::testing::{ip, pod, snapshot, socket};

fn client() -> Identity {
    Identity::new("cluster.local", "team-a", "sleep")
}

fn policy(name: &str, scope: Scope, action: Action, rules: Vec<Rule>) -> Policy {
    Policy { name: name.into(), namespace: "default".into(), scope, action, dry_run: false, rules }
}

fn clause(matches: Vec<Match>) -> Clause {
    Clause { matches }
}

fn rule(matches: Vec<Match>) -> Rule {
    Rule { clauses: vec![clause(matches)] }
}

fn matching() -> Match {
    Match { destination_ports: vec![8080], ..Match::default() }
}

fn failing() -> Match {
    Match { destination_ports: vec![1], ..Match::default() }
}

fn everything() -> Vec<Rule> {
    vec![Rule::default()]
}

fn judge(policies: Vec<Policy>, listed: &[&str], identity: Option<&Identity>) -> Judgement {
    let workload = Workload {
        authorization_policies: listed.iter().map(|name| Arc::from(*name)).collect(),
        ..pod("web", &["10.0.0.9"])
    };
    let connection = Connection {
        source_identity: identity,
        source_ip: ip("10.0.0.1"),
        destination: socket("10.0.0.9:8080"),
    };
    authorize(&snapshot([], [], policies), &workload, &connection)
}

/// Whether a policy of these rules matches.
fn matches(rules: Vec<Rule>, identity: Option<&Identity>) -> bool {
    let judgement = judge(vec![policy("p", Scope::Global, Action::Deny, rules)], &[], identity);
    judgement.verdict != Verdict::Allow
}

fn exact(text: &str) -> Vec<StringMatch> {
    vec![StringMatch::Exact(text.into())]
}

#[test]
fn every_type_of_match_positive_and_negative() {
    let m = Match::default;
    let account =
        |namespace: &str, name: &str| vec![ServiceAccount { namespace: namespace.into(), name: name.into() }];
    let net = |text: &str| vec![text.parse().unwrap()];
    let principal = "cluster.local/ns/team-a/sa/sleep";
    // What, does it match the client, does it match a client without an identity.
    let table: Vec<(&str, Match, bool, bool)> = vec![
        ("empty", m(), false, false),
        ("ns", Match { namespaces: exact("team-a"), ..m() }, true, false),
        ("other ns", Match { namespaces: exact("team-b"), ..m() }, false, false),
        ("not ns", Match { not_namespaces: exact("team-a"), ..m() }, false, true),
        ("not other ns", Match { not_namespaces: exact("team-b"), ..m() }, true, true),
        ("ns prefix", Match { namespaces: vec![StringMatch::Prefix("team-".into())], ..m() }, true, false),
        (
            "ns other prefix",
            Match { namespaces: vec![StringMatch::Prefix("eam".into())], ..m() },
            false,
            false,
        ),
        ("ns suffix", Match { namespaces: vec![StringMatch::Suffix("-a".into())], ..m() }, true, false),
        ("ns other suffix", Match { namespaces: vec![StringMatch::Suffix("-".into())], ..m() }, false, false),
        ("ns presence", Match { namespaces: vec![StringMatch::Presence], ..m() }, true, false),
        ("no ns", Match { not_namespaces: vec![StringMatch::Presence], ..m() }, false, true),
        ("principal", Match { principals: exact(principal), ..m() }, true, false),
        (
            "with scheme",
            Match { principals: exact("spiffe://cluster.local/ns/team-a/sa/sleep"), ..m() },
            false,
            false,
        ),
        ("other principal", Match { principals: exact("x/ns/team-a/sa/sleep"), ..m() }, false, false),
        ("not principal", Match { not_principals: exact(principal), ..m() }, false, true),
        ("not other principal", Match { not_principals: exact("x"), ..m() }, true, true),
        (
            "principal prefix",
            Match { principals: vec![StringMatch::Prefix("cluster.local/ns/".into())], ..m() },
            true,
            false,
        ),
        (
            "principal suffix",
            Match { principals: vec![StringMatch::Suffix("/sa/sleep".into())], ..m() },
            true,
            false,
        ),
        ("any principal", Match { principals: vec![StringMatch::Presence], ..m() }, true, false),
        ("no principal", Match { not_principals: vec![StringMatch::Presence], ..m() }, false, true),
        ("account", Match { service_accounts: account("team-a", "sleep"), ..m() }, true, false),
        ("account elsewhere", Match { service_accounts: account("team-b", "sleep"), ..m() }, false, false),
        ("other account", Match { service_accounts: account("team-a", "other"), ..m() }, false, false),
        ("not account", Match { not_service_accounts: account("team-a", "sleep"), ..m() }, false, true),
        ("not other account", Match { not_service_accounts: account("team-a", "other"), ..m() }, true, true),
        ("source ip", Match { source_ips: net("10.0.0.0/24"), ..m() }, true, true),
        ("other source ip", Match { source_ips: net("10.0.1.0/24"), ..m() }, false, false),
        ("source of other family", Match { source_ips: net("::/0"), ..m() }, false, false),
        ("source ip by a mapped range", Match { source_ips: net("::ffff:10.0.0.0/120"), ..m() }, true, true),
        ("other mapped range", Match { source_ips: net("::ffff:10.0.1.0/120"), ..m() }, false, false),
        ("all of IPv4 as a mapped range", Match { source_ips: net("::ffff:0:0/96"), ..m() }, true, true),
        ("a wider range than IPv4 is IPv6", Match { source_ips: net("::ffff:0:0/80"), ..m() }, false, false),
        (
            "not destination ip by a mapped range",
            Match { not_destination_ips: net("::ffff:10.0.0.9/128"), ..m() },
            false,
            false,
        ),
        ("not source ip", Match { not_source_ips: net("10.0.0.1/32"), ..m() }, false, false),
        ("not other source ip", Match { not_source_ips: net("10.0.0.2/32"), ..m() }, true, true),
        ("destination ip", Match { destination_ips: net("10.0.0.9/32"), ..m() }, true, true),
        ("other destination ip", Match { destination_ips: net("10.0.0.1/32"), ..m() }, false, false),
        ("not destination ip", Match { not_destination_ips: net("0.0.0.0/0"), ..m() }, false, false),
        ("not other destination ip", Match { not_destination_ips: net("10.9.0.0/16"), ..m() }, true, true),
        ("port", Match { destination_ports: vec![8080], ..m() }, true, true),
        ("other port", Match { destination_ports: vec![80], ..m() }, false, false),
        ("not port", Match { not_destination_ports: vec![8080], ..m() }, false, false),
        ("not other port", Match { not_destination_ports: vec![80], ..m() }, true, true),
        // Values of a type are OR-ed, types AND-ed, of a `not_` none may match.
        ("values or", Match { destination_ports: vec![1, 8080], ..m() }, true, true),
        ("not values", Match { not_destination_ports: vec![1, 8080], ..m() }, false, false),
        (
            "types and",
            Match { destination_ports: vec![8080], namespaces: exact("team-a"), ..m() },
            true,
            false,
        ),
        (
            "types and, one fails",
            Match { destination_ports: vec![1], namespaces: exact("team-a"), ..m() },
            false,
            false,
        ),
        (
            "both of a type",
            Match { namespaces: vec![StringMatch::Presence], not_namespaces: exact("team-a"), ..m() },
            false,
            false,
        ),
    ];
    for (what, condition, with_identity, without) in table {
        assert_eq!(matches(vec![rule(vec![condition.clone()])], Some(&client())), with_identity, "{what}");
        assert_eq!(matches(vec![rule(vec![condition])], None), without, "{what}, no identity");
    }
}

#[test]
fn addresses_are_compared_in_canonical_form() {
    let condition = Match { source_ips: vec!["10.0.0.0/8".parse().unwrap()], ..Match::default() };
    let mesh = snapshot([], [], [policy("p", Scope::Global, Action::Deny, vec![rule(vec![condition])])]);
    let connection = Connection {
        source_identity: None,
        source_ip: ip("::ffff:10.0.0.1"),
        destination: socket("[::ffff:10.0.0.9]:8080"),
    };
    assert_ne!(authorize(&mesh, &pod("web", &[]), &connection).verdict, Verdict::Allow);
}

#[test]
fn rules_or_clauses_and_matches_or() {
    let table: Vec<(&str, Vec<Rule>, bool)> = vec![
        ("no rules", vec![], false),
        ("a rule without clauses", everything(), true),
        ("a clause without matches", vec![rule(vec![])], true),
        ("an empty match", vec![rule(vec![Match::default()])], false),
        ("an empty match or one that holds", vec![rule(vec![Match::default(), matching()])], true),
        ("rules or", vec![rule(vec![failing()]), rule(vec![matching()])], true),
        ("no rule", vec![rule(vec![failing()]), rule(vec![failing()])], false),
        (
            "clauses and",
            vec![Rule { clauses: vec![clause(vec![matching()]), clause(vec![failing()])] }],
            false,
        ),
        (
            "all clauses",
            vec![Rule { clauses: vec![clause(vec![matching()]), clause(vec![matching()])] }],
            true,
        ),
        (
            "an empty clause and one that fails",
            vec![Rule { clauses: vec![clause(vec![]), clause(vec![failing()])] }],
            false,
        ),
        ("matches or", vec![rule(vec![failing(), matching()])], true),
    ];
    for (what, rules, expected) in table {
        assert_eq!(matches(rules, Some(&client())), expected, "{what}");
    }
}

#[test]
fn deny_comes_before_allow_and_allow_must_match_once_there_is_one() {
    use Action::{Allow, Deny};
    use Scope::{Global, Namespace, WorkloadSelector};
    let not_allowed = || Verdict::Deny(DenyReason::NotAllowed);
    let denied = |policy: &str| Verdict::Deny(DenyReason::Explicit { policy: policy.into() });
    let unknown = |name: &str| Verdict::Deny(DenyReason::UnknownPolicy { name: name.into() });
    let other =
        |scope, action| Policy { namespace: "elsewhere".into(), ..policy("p", scope, action, everything()) };
    let table: Vec<(&str, Vec<Policy>, &[&str], Verdict)> = vec![
        ("no policy", vec![], &[], Verdict::Allow),
        ("a DENY that does not match", vec![policy("d", Global, Deny, vec![])], &[], Verdict::Allow),
        ("an ALLOW that matches", vec![policy("a", Namespace, Allow, everything())], &[], Verdict::Allow),
        ("an ALLOW that does not", vec![policy("a", Namespace, Allow, vec![])], &[], not_allowed()),
        (
            "one ALLOW of two",
            vec![policy("a", Namespace, Allow, vec![]), policy("b", Global, Allow, everything())],
            &[],
            Verdict::Allow,
        ),
        (
            "both",
            vec![policy("a", Global, Allow, everything()), policy("d", Namespace, Deny, everything())],
            &[],
            denied("default/d"),
        ),
        ("of another namespace", vec![other(Namespace, Deny)], &[], Verdict::Allow),
        ("global, of another namespace", vec![other(Global, Deny)], &[], denied("elsewhere/p")),
        (
            "selector, not listed",
            vec![policy("s", WorkloadSelector, Deny, everything())],
            &[],
            Verdict::Allow,
        ),
        (
            "selector, listed",
            vec![policy("s", WorkloadSelector, Deny, everything())],
            &["default/s"],
            denied("default/s"),
        ),
        (
            "selector, listed, of another namespace",
            vec![other(WorkloadSelector, Deny)],
            &["elsewhere/p"],
            denied("elsewhere/p"),
        ),
        ("unknown", vec![], &["default/u"], unknown("default/u")),
        (
            "unknown beside an ALLOW that matches",
            vec![policy("a", WorkloadSelector, Allow, everything())],
            &["default/a", "default/u"],
            unknown("default/u"),
        ),
        (
            "unknown beside a DENY that matches",
            vec![policy("d", WorkloadSelector, Deny, everything())],
            &["default/u", "default/d"],
            denied("default/d"),
        ),
    ];
    for (what, policies, listed, expected) in table {
        assert_eq!(judge(policies, listed, Some(&client())).verdict, expected, "{what}");
    }
}

#[test]
fn dry_run_policies_are_reported_and_count_for_nothing() {
    let dry = |name, action, rules| Policy { dry_run: true, ..policy(name, Scope::Global, action, rules) };
    let judgement = judge(
        vec![
            dry("d", Action::Deny, everything()),
            dry("a", Action::Allow, vec![]),
            dry("b", Action::Allow, everything()),
        ],
        &[],
        None,
    );
    let report = |policy: &str, action| DryRunMatch { policy: policy.into(), action };
    assert_eq!(
        judgement,
        Judgement {
            verdict: Verdict::Allow,
            known: None,
            dry_run: vec![report("default/b", Action::Allow), report("default/d", Action::Deny)],
        }
    );
}

#[test]
fn a_caller_can_bridge_the_moment_until_a_named_policy_comes() {
    let workload = Workload { authorization_policies: vec!["default/new".into()], ..pod("web", &[]) };
    let mesh = snapshot([], [], [policy("old", Scope::WorkloadSelector, Action::Deny, everything())]);
    let connection =
        Connection { source_identity: None, source_ip: ip("10.0.0.1"), destination: socket("10.0.0.9:80") };
    assert_eq!(unknown_policies(&mesh, &workload).collect::<Vec<_>>(), [&Arc::from("default/new")]);
    let by_list = |listed: &[Arc<str>]| authorize_listed(&mesh, &workload, listed, &connection).verdict;
    assert_eq!(by_list(&[]), Verdict::Allow);
    assert_eq!(
        by_list(&["default/old".into()]),
        Verdict::Deny(DenyReason::Explicit { policy: "default/old".into() })
    );
}

#[test]
fn reasons_read_as_in_access_logs() {
    for (reason, words) in [
        (DenyReason::Explicit { policy: "ns/p".into() }, "explicitly denied by: ns/p"),
        (DenyReason::NotAllowed, "allow policies exist, but none allowed"),
    ] {
        assert_eq!(reason.to_string(), words);
    }
}

#[test]
fn an_explanation_names_the_rule_of_each_policy_and_changes_no_verdict() {
    let table = [
        policy(
            "b-allow",
            Scope::Namespace,
            Action::Allow,
            vec![rule(vec![failing()]), rule(vec![matching()])],
        ),
        policy("c-deny", Scope::Global, Action::Deny, vec![rule(vec![failing()])]),
        Policy {
            dry_run: true,
            ..policy("d-tried", Scope::WorkloadSelector, Action::Deny, vec![rule(vec![matching()])])
        },
    ];
    let workload = Workload {
        authorization_policies: vec!["default/d-tried".into(), "default/gone".into()],
        ..pod("web", &["10.0.0.9"])
    };
    let identity = client();
    let connection = Connection {
        source_identity: Some(&identity),
        source_ip: ip("10.0.0.1"),
        destination: socket("10.0.0.9:8080"),
    };
    let mesh = snapshot([], [], table);
    let (judgement, considered) =
        explain_listed(&mesh, &workload, &workload.authorization_policies, &connection);
    assert_eq!(judgement, authorize(&mesh, &workload, &connection));
    let said =
        |policy: &str, action, dry_run, rule| Considered { policy: policy.into(), action, dry_run, rule };
    let mut sorted = considered;
    sorted.sort_by(|one, other| one.policy.cmp(&other.policy));
    assert_eq!(
        sorted,
        [
            said("default/b-allow", Action::Allow, false, Some(1)),
            said("default/c-deny", Action::Deny, false, None),
            said("default/d-tried", Action::Deny, true, Some(0)),
        ]
    );
}
