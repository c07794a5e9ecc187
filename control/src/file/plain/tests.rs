use super::as_json;

#[track_caller]
fn same(yaml: &str, json: &str) {
    let read: serde_json::Value = serde_json::from_str(&as_json(yaml).expect(yaml)).expect(yaml);
    assert_eq!(read, serde_json::from_str::<serde_json::Value>(json).unwrap(), "{yaml}");
}

#[test]
fn blocks_words_and_brackets_are_taken() {
    same("a: b", r#"{"a": "b"}"#);
    same("# first\n\na:   two words  \n", r#"{"a": "two words"}"#);
    same("a:\n  b: 1\n  c: true\nd: '1'", r#"{"a": {"b": 1, "c": true}, "d": "1"}"#);
    same("a:\n- b\n- c\nd: e", r#"{"a": ["b", "c"], "d": "e"}"#);
    same("a:\n  - b: 1\n    c: 2\n  - b: 3", r#"{"a": [{"b": 1, "c": 2}, {"b": 3}]}"#);
    same("a:\n  -   b: 1\n      c:\n        - d", r#"{"a": [{"b": 1, "c": ["d"]}]}"#);
    same(
        "- {a: [1, 'x', \"y\"], b/c.d: {80: 8080}}\n- []\n- {}",
        r#"[{"a": [1, "x", "y"], "b/c.d": {"80": 8080}}, [], {}]"#,
    );
    same("ip: fd00::1\nother: [fd00::2, 10.0.0.1]", r#"{"ip": "fd00::1", "other": ["fd00::2", "10.0.0.1"]}"#);
    same("'a b': 1\n\"80\": 0", r#"{"a b": 1, "80": 0}"#);
    same("uid: cluster1//v1/Pod/default/local", r#"{"uid": "cluster1//v1/Pod/default/local"}"#);
}

#[test]
fn anything_else_is_left_to_the_yaml_reader() {
    for yaml in [
        "",
        "# nothing",
        "a:",
        "a: ",
        "a: ~",
        "a: null",
        "- ",
        "-",
        "- - a",
        "a: 010",
        "a: 12345678901",
        "a: 0x10\nb: &c d",
        "a: *c",
        "a: !!str b",
        "a: |\n  b",
        "a: >-\n  b",
        "a: b\n  c",
        "a: b\n  c: d",
        "a:\n  b: 1\n c: 2",
        "  a: 1\nb: 2",
        "a: 1\n- b",
        "a: 1\na: 2",
        "a: {b: 1, b: 2}",
        "a: {80: 1, '80': 2}",
        "a: {b: 1",
        "a: [1, 2",
        "a: [1]]",
        "a: [1] b",
        "a: [1,]",
        "a: {b}",
        "a: {b:1}",
        "a: {\"b\":1}",
        "a: {b: 1,}",
        "a: [b: 1]",
        "a: it's",
        "a: 'it''s'",
        "a: \"b\\n\"",
        "a: \"b\" c",
        "a: b: c",
        "a: b:",
        "a: b # c",
        "a: @b",
        "a: =",
        "a: \u{e9}",
        "a: b\tc",
        "? a\n: b",
        "---\na: b",
        "a: b\n...",
    ] {
        assert_eq!(as_json(yaml), None, "{yaml:?}");
    }
    let deep =
        (0..100).map(|depth| format!("{:depth$}a:\n", "")).collect::<String>() + &" ".repeat(100) + "b: c";
    assert_eq!(as_json(&deep), None);
    assert_eq!(as_json(&("a: ".to_owned() + &"[".repeat(100) + &"]".repeat(100))), None);
}
