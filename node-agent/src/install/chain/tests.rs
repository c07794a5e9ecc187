//! Entries put into texts of every shape, and cut out again.

use super::*;

const ONE_LINE: &str =
    r#"{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"bridge"},{"type":"portmap"}]}"#;
const INDENTED: &str = "{\n  \"cniVersion\": \"0.3.1\",\n  \"name\": \"k8s-pod-network\",\n  \"plugins\": [\n    {\n      \"type\": \
                        \"calico\",\n      \"ipam\": { \"type\": \"calico-ipam\" }\n    },\n    {\"type\": \"portmap\", \
                        \"snat\": true}\n  ],\n  \"x-other\": [1.50, \"\\u00e9\"]\n}\n";
const ALONE: &str = "{\"name\":\"n\",\"cniVersion\":\"1.1.0\",\"plugins\":[ {\"type\":\"ptp\"} ]}";
const SINGLE: &str = "\n{\n  \"cniVersion\": \"0.3.1\",\n  \"name\": \"net\",\n  \"type\": \"bridge\",\n  \"mtu\": 1.0e3\n}\n\n";

fn entry() -> Entry {
    Entry::new(
        "/run/culvert/cni.sock".into(),
        "/run/culvert/ambient.json".into(),
        vec!["kube-system".to_owned()],
    )
}

fn list(text: &str) -> Chain<'_> {
    Chain::read(text, Form::List).unwrap()
}

fn types(text: &str) -> Vec<String> {
    let value: Value = serde_json::from_str(text).unwrap();
    let plugins = value["plugins"].as_array().unwrap();
    plugins.iter().map(|plugin| plugin["type"].as_str().unwrap().to_owned()).collect()
}

#[test]
fn an_entry_comes_last_and_leaves_as_it_came() {
    for text in [ONE_LINE, INDENTED, ALONE] {
        let with = list(text).with(&entry(), false).unwrap();
        let before = types(text);
        assert_eq!(types(&with), [before, vec![PLUGIN.to_owned()]].concat(), "{with}");
        assert_eq!(list(&with).with(&entry(), false), None, "it is there already: {with}");
        assert_eq!(list(&with).without().unwrap(), text, "{with}");
        assert_eq!(list(text).without(), None);
    }
    let with = list(INDENTED).with(&entry(), false).unwrap();
    assert!(
        with.contains("},\n    {\"type\":\"culvert-cni\"") && with.contains("}\n  ],\n  \"x-other\": [1.50,"),
        "{with}"
    );
}

#[test]
fn an_older_one_of_ours_is_replaced_wherever_it_is() {
    let old = r#"{"type":"culvert-cni","socket":"/old"}"#;
    for text in [
        ONE_LINE.replace("[{", &format!("[{old},{{")),
        ONE_LINE.replace("},{", &format!("}},{old},{{")),
        ONE_LINE.replace("}]", &format!("}},{old}]")),
        ONE_LINE.replace("}]", &format!("}},{old},{old}]")),
        // Written by somebody who orders keys, as whole as it was.
        ONE_LINE.replace("}]", &format!("}}, {}, {old} ]", entry().to_json())),
    ] {
        let with = list(&text).with(&entry(), false).unwrap();
        assert_eq!(types(&with), ["bridge", "portmap", PLUGIN], "{text} became {with}");
        assert_eq!(list(&with).ours().unwrap(), entry());
        assert_eq!(types(&list(&with).without().unwrap()), ["bridge", "portmap"]);
    }
}

#[test]
fn an_entry_that_somebody_wrote_in_other_words_stays() {
    let value: Value = serde_json::from_str(&entry().to_json()).unwrap();
    let text = ONE_LINE.replace("}]", &format!("}},\n{value:#}]"));
    assert_eq!(list(&text).with(&entry(), false), None);
}

#[test]
fn a_single_plugin_becomes_a_list_and_again_a_single_one() {
    for text in [SINGLE, SINGLE.trim(), &SINGLE.replace("0.3.1", "0.2.0")] {
        let mut ours = entry();
        ours.wraps = Some("10-net.conf".to_owned());
        let with = Chain::read(text, Form::Single).unwrap().with(&ours, false).unwrap();
        assert_eq!(types(&with), ["bridge", PLUGIN], "{with}");
        let value: Value = serde_json::from_str(&with).unwrap();
        assert_eq!((&value["cniVersion"], &value["name"]), (&"0.3.1".into(), &"net".into()));
        let chain = list(&with);
        assert_eq!(chain.unwrapped().unwrap(), ("10-net.conf".to_owned(), text.to_owned()));
        // Another socket, say: what was wrapped stays as it was, and the entry knows of it.
        let mut other = entry();
        other.socket = "/elsewhere".into();
        let again = chain.with(&other, false).unwrap();
        assert_eq!(list(&again).unwrapped().unwrap(), ("10-net.conf".to_owned(), text.to_owned()), "{again}");
        assert_eq!(list(&again).with(&other, false), None);
    }
}

#[test]
fn what_leads_out_of_the_directory_is_not_unwrapped() {
    for name in ["../10-net.conf", "/etc/passwd.conf", "..", "10-net.conflist", "x", ""] {
        let mut ours = entry();
        ours.wraps = Some(name.to_owned());
        let with = Chain::read(SINGLE, Form::Single).unwrap().with(&ours, false).unwrap();
        assert_eq!(list(&with).unwrapped(), None, "{name}");
    }
}

#[test]
fn istio_cni_is_replaced_and_put_back_in_its_own_words() {
    let istio = "{\"type\":\"istio-cni\",  \"plugin_log_level\":\"info\"}";
    let text = INDENTED.replace("\"snat\": true}\n", &format!("\"snat\": true}},\n    {istio}\n"));
    assert!(list(&text).has_other_mesh());
    let beside = list(&text).with(&entry(), false).unwrap();
    assert_eq!(types(&beside), ["calico", "portmap", "istio-cni", PLUGIN]);
    let instead = list(&beside).with(&entry(), true).unwrap();
    assert_eq!(types(&instead), ["calico", "portmap", PLUGIN]);
    assert_eq!(list(&instead).with(&entry(), true), None);
    assert_eq!(list(&instead).without().unwrap(), text);
    // And if our entry changes meanwhile.
    let mut other = entry();
    other.socket = "/elsewhere".into();
    let changed = list(&instead).with(&other, true).unwrap();
    assert_eq!(list(&changed).without().unwrap(), text);
}

#[test]
fn what_the_runtime_cannot_use_is_named() {
    let told = |text: &str, form| Chain::read(text, form).unwrap_err().to_string();
    for (text, expected) in [
        ("", "no network configuration: EOF"),
        ("{", "no network configuration"),
        ("[]", "no network configuration"),
        (r#"{"cniVersion":"1.0.0","name":"n"}"#, "missing field `plugins`"),
        (r#"{"cniVersion":"1.0.0","name":"n","plugins":{}}"#, "no network configuration"),
        (r#"{"cniVersion":"1.0.0","name":"n","plugins":[]}"#, "no plugin in it"),
        (r#"{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"culvert-cni"}]}"#, "no plugin in it"),
        (r#"{"cniVersion":"1.0.0","name":"n","plugins":[{}]}"#, "no `type`"),
        (r#"{"cniVersion":"1.0.0","name":"n","plugins":["x"]}"#, "no network configuration"),
        (r#"{"cniVersion":"1.0.0","plugins":[{"type":"x"}]}"#, "no `name`"),
        (r#"{"name":"n","plugins":[{"type":"x"}]}"#, "does not speak"),
        (r#"{"cniVersion":"0.2.0","name":"n","plugins":[{"type":"x"}]}"#, "\"0.2.0\""),
        (r#"{"cniVersion":"9.0.0","name":"n","plugins":[{"type":"x"}]}"#, "0.3.1, 0.4.0, 1.0.0, 1.1.0"),
        (
            r#"{"cniVersion":"1.0.0","name":"n","plugins":[{"type":"x"}],"plugins":[{"type":"y"}]}"#,
            "duplicate",
        ),
    ] {
        let said = told(text, Form::List);
        assert!(said.contains(expected), "{text}: {said}");
    }
    assert!(told(ONE_LINE, Form::Single).contains(".conflist"));
    assert!(told(r#"{"type":"x"}"#, Form::Single).contains("no `name`"));
}

#[test]
fn the_runtime_reads_files_by_their_ends() {
    for (name, form) in [
        ("10-x.conflist", Some(Form::List)),
        ("10-x.conf", Some(Form::Single)),
        ("10-x.json", Some(Form::Single)),
        ("10-x.conflist.bak", None),
        (".conflist", None),
        ("conf", None),
        ("culvert-kubeconfig", None),
    ] {
        assert_eq!(Form::of(name), form, "{name}");
    }
}
