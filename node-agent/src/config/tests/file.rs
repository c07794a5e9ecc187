//! What the configuration file may say, and where it is wrong.

use super::*;

fn told(text: &str) -> Vec<String> {
    let (mut givens, mut problems) = (Givens::default(), Vec::new());
    crate::config::file::parse(Path::new("c.yaml"), text, &mut givens, &mut problems);
    problems
}

#[test]
fn everything_that_is_wrong_is_told_with_its_line() {
    let problems = told(
        "node: a\n\
         # a comment\n\
         nodeName: b\n\
         network: {a: b}\n\
         node: c\n\
         probeProcesses: [a, [b]]\n\
         metadata: text\n\
         xdsHeaders:\n  ok: fine\n  bad: [x]\n\
         capture: &anchor\n  dns: true\n",
    );
    let expected = [
        "c.yaml:3: unknown key \"nodeName\"",
        "c.yaml:4: network: a mapping is no value of it; allowed: a name",
        "c.yaml:5: node is there twice, first in line 1",
        "c.yaml:6: probeProcesses: a nested list",
        "c.yaml:7: metadata: a mapping from names to values is expected",
        "c.yaml:10: xdsHeaders.bad: one value is expected",
        "c.yaml:11: unknown key \"capture\"",
    ];
    assert_eq!(problems.len(), expected.len(), "{problems:#?}");
    for (told, expected) in problems.iter().zip(expected) {
        assert!(told.starts_with(expected), "{told}\n{expected}");
    }
}

#[test]
fn a_value_counts_as_it_was_written() {
    let text = "network: 1.10\nclusterId: 0123\ntakeOver: yes\nproc: ''\nprobeProcesses: [a, b]\nnode: ~\nlog: \"a\\tb\"\n";
    let (mut givens, mut problems) = (Givens::default(), Vec::new());
    crate::config::file::parse(Path::new("c.yaml"), text, &mut givens, &mut problems);
    assert_eq!(problems, [""; 0]);
    let text = |flag: &str| givens.settings[flag].text.as_str();
    assert_eq!(
        [text("network"), text("cluster-id"), text("take-over"), text("proc")],
        ["1.10", "0123", "yes", ""]
    );
    assert_eq!([text("probe-processes"), text("node"), text("log")], ["a,b", "", "a\tb"]);
}

#[test]
fn what_is_no_configuration_is_refused_and_nothing_is_one() {
    for text in ["", "# nothing\n", "---\n", "~\n"] {
        assert_eq!(told(text), [""; 0], "{text:?}");
    }
    for text in
        ["- a\n", "text\n", "node: a\n---\nnode: b\n", "node: [a\n", "node: a: b\n", "*a\n", "? [a]\n: b\n"]
    {
        let problems = told(text);
        assert!(problems.len() == 1 && problems[0].starts_with("c.yaml:"), "{text:?}: {problems:?}");
    }
    assert!(told("network: [a]\n")[0].starts_with("c.yaml:1: network: a list is no value"));
    assert!(told("node: &a b\nnetwork: *a\n")[0].starts_with("c.yaml:2: network: an alias"));
    for deep in ["[", "{a: ", "- ", "? "] {
        assert!(!told(&deep.repeat(100_000)).is_empty(), "{deep:?}");
    }
}

#[test]
fn a_file_that_is_cut_short_is_read_as_far_as_it_goes_or_refused() {
    let text = "# all\nnode: &a 'é\\'\nprobeProcesses: [a, {b: c}]\nmetadata:\n  ? A\n  : \"x\\n\"\n  B: |\n    two\n    lines\nlog: *a\n";
    for (end, _) in text.char_indices() {
        for insert in ["", ":", "- ", "}", "\t", "\u{0}", "%"] {
            let (start, rest) = text.split_at(end);
            drop(told(&format!("{start}{insert}")));
            drop(told(&format!("{start}{insert}{rest}")));
        }
    }
}

#[test]
fn a_bad_value_is_told_with_line_and_key() {
    let file = Temporary::new("bad.yaml", "node: a\ndrainLimit: soon\n");
    let expected = format!("{}:2: drainLimit: soon: no duration", file.0.display());
    let problems = problems(&[&file.flag()], &[]);
    assert!(problems.len() == 1 && problems[0].starts_with(&expected), "{problems:?}");
}
