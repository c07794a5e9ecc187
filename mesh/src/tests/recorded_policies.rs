//! Policies as a real control plane made them of AuthorizationPolicies and PeerAuthentications, each with what five clients
//! then got of two ports of one pod. Most rows were tried against a real data plane; the others follow from the same rules.

use std::sync::Arc;

use super::bookinfo::{self, DETAILS};
use crate::authorize::unknown_policies;
use crate::policy::Action::{Allow, Deny};
use crate::policy::Scope::{Global, Namespace, WorkloadSelector};
use crate::policy::{Action, Clause, Match, Rule, Scope, ServiceAccount, StringMatch};
use crate::testing::{check, socket};
use crate::{Connection, DenyReason, Policy, Snapshot, Verdict, authorize};

/// The clients in the order of a row's columns; the last one is outside the mesh and comes in plaintext.
const CLIENTS: [&str; 5] = [bookinfo::PRODUCTPAGE, "sleep", bookinfo::REVIEWS2, "cart-1", "outsider"];
const PORTS: [u16; 2] = [9080, 8080];

const STATIC_STRICT: &str = "istio-system/istio_converted_static_strict";

/// Name, policies, what the pod lists, and a letter for each client and port: `A`llowed, explicitly `D`enied, or `n`ot
/// allowed by any.
struct Row {
    name: &'static str,
    policies: Vec<Policy>,
    listed: Vec<&'static str>,
    expected: &'static str,
}

fn policy(key: &str, scope: Scope, action: Action, rules: Vec<Vec<Vec<Match>>>) -> Policy {
    let (namespace, name) = key.split_once('/').unwrap();
    let clause = |matches| Clause { matches };
    let rule = |clauses: Vec<Vec<Match>>| Rule { clauses: clauses.into_iter().map(clause).collect() };
    Policy {
        name: name.into(),
        namespace: namespace.into(),
        scope,
        action,
        dry_run: false,
        rules: rules.into_iter().map(rule).collect(),
    }
}

fn m() -> Match {
    Match::default()
}

fn exact(text: &str) -> StringMatch {
    StringMatch::Exact(text.into())
}

fn ranges(ranges: &[&str]) -> Vec<ipnet::IpNet> {
    ranges.iter().map(|range| range.parse().unwrap()).collect()
}

fn account(namespace: &str, name: &str) -> ServiceAccount {
    ServiceAccount { namespace: namespace.into(), name: name.into() }
}

/// Of a client that has proven no identity.
fn no_principal() -> Match {
    Match { not_principals: vec![StringMatch::Presence], ..m() }
}

/// What STRICT becomes; it is sent whenever there is any PeerAuthentication, and named where STRICT holds.
fn static_strict() -> Policy {
    policy(STATIC_STRICT, WorkloadSelector, Deny, vec![vec![vec![no_principal()]]])
}

/// STRICT with an exception for one port.
fn strict_but(name: &str, open: u16) -> Policy {
    let other = Match { not_destination_ports: vec![open], ..m() };
    policy(name, WorkloadSelector, Deny, vec![vec![vec![no_principal()], vec![other]]])
}

fn row(name: &'static str, policies: Vec<Policy>, listed: &[&'static str], expected: &'static str) -> Row {
    Row { name, policies, listed: listed.to_vec(), expected }
}

fn authorization_policies() -> Vec<Row> {
    let one = |name, policy: Policy, expected| row(name, vec![policy], &[], expected);
    let sleep = "cluster.local/ns/bookinfo/sa/sleep";
    let of_namespace = |action, rules| policy("bookinfo/p", Namespace, action, rules);
    let selected = |action, rules| policy("bookinfo/p", WorkloadSelector, action, rules);
    let two_ports =
        vec![Match { destination_ports: vec![80], ..m() }, Match { destination_ports: vec![81], ..m() }];
    let from_plain = vec![Match { namespaces: vec![exact("plain")], ..m() }];
    let by_ip = vec![
        vec![Match {
            source_ips: ranges(&["10.1.1.0/24", "fd00:1::/64", "192.0.2.1/32"]),
            not_source_ips: ranges(&["10.1.1.7/32"]),
            ..m()
        }],
        vec![Match { destination_ports: vec![80, 443], ..m() }],
        vec![Match { not_destination_ips: ranges(&["10.9.0.0/16"]), ..m() }],
    ];
    let by_principal = vec![
        exact("cluster.local/ns/bookinfo/sa/bookinfo-productpage"),
        StringMatch::Suffix("/sa/sleep".into()),
        StringMatch::Prefix("cluster.local/".into()),
        StringMatch::Presence,
    ];
    let by_namespace = Match {
        namespaces: vec![exact("bookinfo"), StringMatch::Prefix("shop".into())],
        not_namespaces: vec![exact("plain")],
        ..m()
    };
    let not_ssh = Match { destination_ports: vec![9080], not_destination_ports: vec![22], ..m() };
    let when_source = vec![
        vec![Match { principals: vec![exact(sleep)], ..m() }],
        vec![Match { not_namespaces: vec![exact("plain")], ..m() }],
        vec![Match { source_ips: ranges(&["10.0.0.0/8"]), ..m() }],
    ];
    let first_rule = vec![
        vec![
            Match { destination_ports: vec![1], ..m() },
            Match { destination_ports: vec![2], not_destination_ports: vec![3], ..m() },
        ],
        vec![
            Match { namespaces: vec![exact("a")], principals: vec![exact("p1")], ..m() },
            Match { source_ips: ranges(&["10.0.0.1/32"]), ..m() },
        ],
    ];
    let second_rule = vec![vec![Match { namespaces: vec![exact("second-rule")], ..m() }]];
    let accounts = vec![account("bookinfo", "sleep"), account("shop", "cart")];
    let not_reviews = vec![exact("cluster.local/ns/bookinfo/sa/bookinfo-reviews")];
    let allow_8443 = vec![vec![vec![Match { destination_ports: vec![8443], ..m() }]]];
    let shop = vec![vec![vec![Match { namespaces: vec![exact("shop")], ..m() }]]];
    let banned = vec![vec![vec![Match { namespaces: vec![exact("banned")], ..m() }]]];
    let p: &[&str] = &["bookinfo/p"];
    vec![
        one("allow-nothing", of_namespace(Allow, vec![]), "nn nn nn nn nn"),
        one("deny-nothing", of_namespace(Deny, vec![]), "AA AA AA AA AA"),
        one("allow-all", of_namespace(Allow, vec![vec![]]), "AA AA AA AA AA"),
        row(
            "principals by four kinds of comparison",
            vec![selected(Allow, vec![vec![vec![Match { principals: by_principal, ..m() }]]])],
            p,
            "AA AA AA AA nn",
        ),
        row(
            "deny all principals but one",
            vec![selected(Deny, vec![vec![vec![Match { not_principals: not_reviews, ..m() }]]])],
            p,
            "DD DD AA DD DD",
        ),
        one(
            "namespaces and a port",
            of_namespace(Allow, vec![vec![vec![not_ssh], vec![by_namespace]]]),
            "An An An An nn",
        ),
        one(
            "service accounts",
            of_namespace(Allow, vec![vec![vec![Match { service_accounts: accounts, ..m() }]]]),
            "nn AA nn AA nn",
        ),
        one("addresses and other ports", of_namespace(Deny, vec![by_ip]), "AA AA AA AA AA"),
        one("conditions on the source", of_namespace(Allow, vec![when_source]), "nn AA nn nn nn"),
        row("HTTP rules left out of an ALLOW", vec![selected(Allow, allow_8443)], p, "nn nn nn nn nn"),
        row("HTTP alone in a DENY", vec![selected(Deny, vec![vec![vec![m()]]])], p, "AA AA AA AA AA"),
        one(
            "HTTP and ports in a DENY",
            of_namespace(Deny, vec![vec![two_ports, from_plain]]),
            "AA AA AA AA AA",
        ),
        one("a token nobody can show in an ALLOW", of_namespace(Allow, vec![]), "nn nn nn nn nn"),
        one(
            "clauses and rules, none of which holds",
            of_namespace(Allow, vec![first_rule, second_rule]),
            "nn nn nn nn nn",
        ),
        one("a namespace in a DENY", of_namespace(Deny, shop.clone()), "AA AA AA DD AA"),
        one("the same as a dry run", Policy { dry_run: true, ..of_namespace(Deny, shop) }, "AA AA AA AA AA"),
        one("mesh-wide", policy("istio-system/mesh-wide", Global, Deny, banned), "AA AA AA AA AA"),
    ]
}

fn peer_authentications() -> Vec<Row> {
    let converted = "bookinfo/converted_peer_authentication_p";
    let strict_port = Match { destination_ports: vec![8080], ..no_principal() };
    let open_but = policy(converted, WorkloadSelector, Deny, vec![vec![vec![strict_port]]]);
    let no_principal_twice = {
        let mut strict = strict_but(converted, 9081);
        strict.rules[0].clauses.push(Clause { matches: vec![no_principal()] });
        strict
    };
    let allow_outsider = Match { namespaces: vec![exact("plain")], ..m() };
    let allow_by_address = Match { source_ips: ranges(&["10.1.1.41/32"]), ..m() };
    let allow = |condition| policy("bookinfo/allow", Namespace, Allow, vec![vec![vec![condition]]]);
    vec![
        row("STRICT", vec![static_strict()], &[STATIC_STRICT], "AA AA AA AA DD"),
        row("PERMISSIVE, or STRICT for others", vec![static_strict()], &[], "AA AA AA AA AA"),
        row(
            "STRICT but for port 8080",
            vec![strict_but(converted, 8080), static_strict()],
            &[converted],
            "AA AA AA AA DA",
        ),
        row(
            "STRICT but for port 9080",
            vec![strict_but(converted, 9080), static_strict()],
            &[converted],
            "AA AA AA AA AD",
        ),
        row(
            "STRICT but for a port that is not asked for, said twice",
            vec![no_principal_twice, static_strict()],
            &[converted],
            "AA AA AA AA DD",
        ),
        row("PERMISSIVE but for port 8080", vec![open_but, static_strict()], &[converted], "AA AA AA AA AD"),
        row(
            "STRICT for the pod and for a port of it: any DENY wins",
            vec![strict_but(converted, 8080), static_strict()],
            &[converted, STATIC_STRICT],
            "AA AA AA AA DD",
        ),
        row(
            "STRICT beside an ALLOW by namespace, which plaintext has not",
            vec![static_strict(), allow(allow_outsider)],
            &[STATIC_STRICT],
            "nn nn nn nn DD",
        ),
        row(
            "STRICT beside an ALLOW by address, which plaintext has",
            vec![static_strict(), allow(allow_by_address)],
            &[STATIC_STRICT],
            "nn nn nn nn DD",
        ),
    ]
}

/// The recorded mesh with a row's policies, listed by the pod.
fn mesh(row: &Row) -> Snapshot {
    let mesh = bookinfo::mesh();
    let mut details = mesh.workload_of_pod("bookinfo", DETAILS).unwrap().as_ref().clone();
    details.authorization_policies = row.listed.iter().map(|name| Arc::from(*name)).collect();
    let mut editor = mesh.edit();
    editor.insert_workload(details);
    row.policies.iter().cloned().for_each(|policy| editor.insert_policy(policy));
    editor.finish()
}

/// What a client gets of a port.
fn verdict(mesh: &Snapshot, client: &str, port: u16) -> Verdict {
    let details = mesh.workload_of_pod("bookinfo", DETAILS).unwrap();
    let client = mesh.workloads().find(|workload| *workload.name == *client).unwrap();
    let identity = client.identity();
    let in_mesh = client.protocol == crate::workload::Protocol::Hbone;
    let connection = Connection {
        source_identity: in_mesh.then_some(&identity),
        source_ip: client.addresses[0],
        destination: socket(&format!("10.1.1.11:{port}")),
    };
    authorize(mesh, details, &connection).verdict
}

fn letters(row: &Row) -> String {
    let mesh = mesh(row);
    let letter = |client, port| match verdict(&mesh, client, port) {
        Verdict::Allow => 'A',
        Verdict::Deny(DenyReason::Explicit { .. }) => 'D',
        Verdict::Deny(DenyReason::NotAllowed) => 'n',
        Verdict::Deny(DenyReason::UnknownPolicy { .. }) => '?',
    };
    CLIENTS.map(|client| PORTS.map(|port| letter(client, port)).iter().collect::<String>()).join(" ")
}

#[test]
fn authorization_policies_as_they_come_from_the_control_plane() {
    check(&authorization_policies(), |row| row.name, |row| (letters(row), row.expected.to_owned()));
}

#[test]
fn peer_authentications_as_they_come_from_the_control_plane() {
    check(&peer_authentications(), |row| row.name, |row| (letters(row), row.expected.to_owned()));
}

#[test]
fn a_denial_names_the_policy_in_the_words_of_access_logs() {
    for (name, policies, listed, words) in [
        (
            "strict",
            vec![static_strict()],
            STATIC_STRICT,
            "explicitly denied by: istio-system/istio_converted_static_strict",
        ),
        (
            "strict but a port",
            vec![static_strict(), strict_but("bookinfo/converted_peer_authentication_p", 8080)],
            "bookinfo/converted_peer_authentication_p",
            "explicitly denied by: bookinfo/converted_peer_authentication_p",
        ),
        (
            "not allowed",
            vec![policy("bookinfo/allow-nothing", Namespace, Allow, vec![])],
            "bookinfo/allow-nothing",
            "allow policies exist, but none allowed",
        ),
        (
            "unknown",
            vec![],
            "bookinfo/gone",
            "policy bookinfo/gone applies to the workload but is not known yet",
        ),
    ] {
        let mesh = mesh(&row("any", policies, &[listed], ""));
        let Verdict::Deny(reason) = verdict(&mesh, "outsider", 9080) else { panic!("{name}: not denied") };
        assert_eq!(reason.to_string(), words, "{name}");
    }
}

/// The control plane names STRICT on every workload first and sends it a moment later.
#[test]
fn strict_that_is_named_but_not_sent_yet_allows_nobody_anew_and_cuts_nobody() {
    let named = row("named", vec![], &[STATIC_STRICT], "");
    assert_eq!(letters(&named), "?? ?? ?? ?? ??");
    let mesh = mesh(&named);
    let details = mesh.workload_of_pod("bookinfo", DETAILS).unwrap();
    assert_eq!(unknown_policies(&mesh, details).collect::<Vec<_>>(), [&Arc::from(STATIC_STRICT)]);
    let destination = socket("10.1.1.11:9080");
    let connection =
        Connection { source_identity: None, source_ip: "10.1.1.41".parse().unwrap(), destination };
    assert_eq!(authorize(&mesh, details, &connection).known, None);
}
