use proptest::prelude::*;
use proptest::sample::select;

use super::super::MeshFile;
use super::super::parse::{in_pieces, meant, whole};
use super::*;

/// What the file says by its pieces, if that is anything.
fn by_pieces(text: &str) -> Option<MeshFile> {
    in_pieces(text).and_then(|raw| meant(raw).ok())
}

/// A workload of this number, its lines after the first one indented by two more than its dash.
fn workload(number: usize, more: &[&str]) -> Vec<String> {
    let mut lines = vec![format!("- name: pod-{number}"), "  namespace: team".to_owned()];
    lines.extend(more.iter().map(|line| format!("  {line}")));
    lines
}

const MORE: [&str; 18] = [
    "capacity: 3",
    "capacity: '3'",
    "node: yes",
    "node: 1.5",
    "node: ~",
    "canonicalRevision: 17",
    "services: {team/web.example: {\"80\": \"8080\", 443: 0}}",
    "hostname: \"\"",
    "protocol: HBONE",
    "workloadIps: [10.0.0.1, \"fd00::1\"]",
    "workloadIps:\n  - 10.0.0.1\n  - 'fd00::1'",
    "services:\n    team/web.example:\n      80: 8080",
    "services: {team/web.example: {80: 8080, 443: 0}}",
    "trustDomain: own.example",
    "node: node one\n    two",
    "locality: {}",
    "# a remark: \"which ends",
    "authorizationPolicies:\n  - team/one\n\n  - team/two",
];

fn good() -> impl Strategy<Value = String> {
    let more = prop::collection::vec(select(MORE.to_vec()), 0..3).prop_map(|mut more| {
        let key = |line: &&str| line.split(':').next().map(str::to_owned);
        more.sort_by_key(key);
        more.dedup_by_key(|line| key(line));
        more
    });
    let before = select(vec![
        "",
        "trustDomain: td.example\n",
        "enroll:\n- {name: pod-1, namespace: team}\n",
        "# first\n\n",
    ]);
    let after = select(vec![
        "",
        "services:\n- name: web\n  namespace: team\n  hostname: web.example\n",
        "policies: []\n",
    ]);
    (before, prop::collection::vec(more, 3..20), select(vec![0, 2, 5]), after).prop_map(
        |(before, all, indent, after)| {
            let lines = all.iter().enumerate().flat_map(|(number, more)| workload(number, more));
            let lines = lines.flat_map(|line| line.split('\n').map(str::to_owned).collect::<Vec<_>>());
            let items: String = lines.map(|line| format!("{:indent$}{line}\n", "")).collect();
            format!("{before}workloads:\n{items}{after}")
        },
    )
}

/// Lines that may or may not make a file together.
const LINES: [&str; 49] = [
    "  services: {team/web.example: {443: 010}}",
    "  capacity: 0x10",
    "  capacity: 1_000",
    "  services: {team/web.example: {80: +8080}}",
    "  services: {team/web.example: {80: 1, 80: 2}}",
    "  services: [team/web.example]",
    "  node: null",
    "  node: true",
    "  nativeTunnel: {a: [b, c]}",
    "workloads:",
    "workloads: []",
    "\"workloads\":",
    "- name: p",
    "- {name: q, namespace: n}",
    "  namespace: n",
    "  name: r",
    "  - name: s",
    "    namespace: n",
    "services: []",
    "services:",
    "  hostname: h",
    "trustDomain: td",
    "version: \"one",
    "two\"",
    "version: 'three",
    "four'",
    "  node: |",
    "    - name: t",
    "  node: >-",
    "- name: &u v",
    "  node: *u",
    "- &w",
    "  node: !!str x",
    "---",
    "...",
    "enroll: [",
    "]",
    "enroll: [ \"]",
    "{",
    "}",
    "# remark",
    "",
    "  node: it's",
    "%YAML 1.2",
    "  # indented",
    "- ",
    "-",
    "  node: a\r- name: b",
    "\tnode: c",
];

proptest! {
    #[test]
    fn a_good_file_says_in_pieces_what_it_says_as_a_whole(text in good()) {
        let expected = whole(&text).unwrap_or_else(|error| panic!("{error}\n{text}"));
        prop_assert_eq!(by_pieces(&text), Some(expected), "{}", text);
    }

    #[test]
    fn whatever_is_taken_apart_says_what_it_says_as_a_whole(
        before in prop::collection::vec(select(LINES.to_vec()), 0..3),
        items in prop::collection::vec(prop::collection::vec(select(LINES.to_vec()), 0..2), 2..8),
        after in prop::collection::vec(select(LINES.to_vec()), 0..3),
    ) {
        let mut lines: Vec<String> = before.into_iter().map(str::to_owned).collect();
        lines.push("workloads:".to_owned());
        for (number, more) in items.into_iter().enumerate() {
            lines.extend(workload(number, &["protocol: TCP"]));
            lines.extend(more.into_iter().map(str::to_owned));
        }
        lines.extend(after.into_iter().map(str::to_owned));
        let text = lines.join("\n");
        if let Some(file) = by_pieces(&text) {
            prop_assert_eq!(whole(&text), Ok(file), "{}", text);
        }
    }
}

#[test]
fn what_goes_over_the_end_of_a_line_is_not_plain() {
    for (line, plain) in [
        ("- name: a", true),
        ("  workloadIps: [10.0.0.1, 'fd00::1']", true),
        ("  services: {team/web.example: {80: 8080}}", true),
        ("# anything: \"[&*", true),
        ("", true),
        ("  workloadIps: [10.0.0.1,", false),
        ("  ]", false),
        ("  node: [\"]\"]", false),
        ("  node: \"a", false),
        ("  node: it's", false),
        ("  node: \"a\\nb\"", false),
        ("  node: |", false),
        ("  node: >-", false),
        ("  node: &a b", false),
        ("  node: *a", false),
        ("  node: !!str b", false),
        ("  ? a", false),
        ("  node: a # b", false),
        ("%YAML 1.2", false),
        ("---", false),
        ("... ", false),
        ("  node: a\r", false),
        ("# a\rb", false),
        ("\tnode: a", false),
        ("  node: \u{e9}", false),
    ] {
        assert_eq!(is_plain(line), plain, "{line:?}");
    }
}

#[test]
fn an_error_in_a_large_file_has_its_line() {
    let items: String =
        (0..50).flat_map(|number| workload(number, &["protocol: TCP"])).map(|line| line + "\n").collect();
    let text = format!("trustDomain: td.example\nworkloads:\n{items}");
    assert!(Pieces::of(&text, PIECE).is_some_and(|pieces| pieces.lists().len() > 20));
    assert_eq!(MeshFile::parse(&text).unwrap().workloads.len(), 50);
    let bad = text.replacen("- name: pod-30\n", "- nam: pod-30\n", 1);
    let error = MeshFile::parse(&bad).unwrap_err();
    assert!(error.line == 3 + 90 && error.message.contains("nam"), "{error}");
    let twice = text.replacen("- name: pod-30\n", "- name: pod-7\n", 1);
    let error = MeshFile::parse(&twice).unwrap_err();
    assert!(error.line == 3 + 90 && error.message.contains("is there twice"), "{error}");
}
