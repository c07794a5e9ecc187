use std::ffi::OsString;

use serde_json::Value;

use super::*;

const PREV: &str = r#"{ "cniVersion": "1.0.0", "zeta": 1.50, "ips": [{"address": "10.1.1.2/24"}] }"#;

fn call(command: &str, extra: &[(&str, &str)], stdin: &str) -> Answer {
    let base = [("CNI_COMMAND", command), ("CNI_CONTAINERID", "c1"), ("CNI_IFNAME", "eth0")];
    let env = |name: &str| {
        let found = extra.iter().chain(&base).find(|(n, _)| *n == name);
        found.map(|(_, value)| OsString::from(value))
    };
    run(&env, stdin.as_bytes())
}

fn config(namespace_list: &str) -> String {
    format!(
        r#"{{"cniVersion":"1.0.0","name":"n","type":"culvert-cni","socket":"/nonexistent/culvert.sock",
            "excludeNamespaces":{namespace_list},"prevResult":{PREV}}}"#
    )
}

const POD: (&str, &str) = ("CNI_ARGS", "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=sleep");
const NETNS: (&str, &str) = ("CNI_NETNS", "/proc/self/ns/net");

#[test]
fn pods_that_cannot_be_in_the_mesh_never_wait_for_the_agent() {
    for (args, excluded) in [("", "[]"), (POD.1, r#"["default"]"#), ("K8S_POD_NAME=podman", "[]")] {
        let answer = call("ADD", &[("CNI_ARGS", args), NETNS], &config(excluded));
        assert_eq!((answer.failed, answer.stdout.as_str()), (false, PREV), "prevResult byte for byte");
    }
}

#[test]
fn without_prev_result_the_result_is_empty() {
    let answer = call("ADD", &[NETNS], r#"{"cniVersion":"0.4.0","type":"culvert-cni"}"#);
    assert_eq!((answer.failed, answer.stdout.as_str()), (false, r#"{"cniVersion":"0.4.0"}"#));
}

#[test]
fn a_pod_whose_agent_is_not_there_does_not_start() {
    for command in ["ADD", "CHECK"] {
        let answer = call(command, &[POD, NETNS], &config("[]"));
        let error: Value = serde_json::from_str(&answer.stdout).unwrap();
        assert!(answer.failed);
        assert_eq!((&error["code"], &error["cniVersion"]), (&11.into(), &"1.0.0".into()));
        assert!(error["msg"].as_str().unwrap().contains("start the culvert agent"), "{error}");
        assert!(error["details"].as_str().unwrap().contains("/nonexistent/culvert.sock"), "{error}");
    }
}

#[test]
fn a_netns_that_is_gone_is_told() {
    let answer = call("ADD", &[POD, ("CNI_NETNS", "/run/netns/culvert-no-such")], &config("[]"));
    assert!(answer.failed && answer.stdout.contains(r#""code":100"#), "{}", answer.stdout);
    let answer = call("ADD", &[POD], &config("[]"));
    assert!(answer.failed && answer.stdout.contains("CNI_NETNS is not set"), "{}", answer.stdout);
}

#[test]
fn del_succeeds_repeatedly_without_netns_and_without_agent() {
    for _ in 0..3 {
        let answer =
            call("DEL", &[POD, ("CNI_NETNS", "")], r#"{"cniVersion":"1.0.0","socket":"/nonexistent/s"}"#);
        assert_eq!((answer.failed, answer.stdout.as_str()), (false, ""));
        assert!(answer.notes[0].contains("/nonexistent/s"), "{:?}", answer.notes);
    }
}

#[test]
fn versions_are_answered_and_unknown_ones_refused() {
    let answer = call("VERSION", &[], r#"{"cniVersion":"0.4.0"}"#);
    let parsed: Value = serde_json::from_str(&answer.stdout).unwrap();
    assert_eq!(parsed["cniVersion"], "0.4.0");
    assert_eq!(parsed["supportedVersions"], serde_json::json!(["0.3.1", "0.4.0", "1.0.0", "1.1.0"]));
    for version in ["0.1.0", "0.2.0", "0.3.0", "1.2.0", ""] {
        let answer = call("ADD", &[NETNS], &format!(r#"{{"cniVersion":"{version}"}}"#));
        assert!(answer.failed && answer.stdout.contains(r#""code":1,"#), "{}", answer.stdout);
        assert!(answer.stdout.contains("one of 0.3.1, 0.4.0, 1.0.0, 1.1.0"), "{}", answer.stdout);
    }
}

#[test]
fn garbage_is_a_specification_error() {
    for (command, stdin, code) in [("ADD", "{", 6), ("", "{}", 4), ("FORMAT", "{}", 4), ("STATUS", "[", 6)] {
        let answer = call(command, &[NETNS], stdin);
        let error: Value = serde_json::from_str(&answer.stdout).unwrap();
        assert_eq!((answer.failed, &error["code"]), (true, &code.into()), "{command} {stdin}");
    }
    assert_eq!(call("STATUS", &[], r#"{"cniVersion":"1.1.0"}"#), Answer::success(String::new()));
    for command in ["STATUS", "GC"] {
        let answer = call(command, &[], r#"{"cniVersion":"0.3.0"}"#);
        assert!(answer.failed && answer.stdout.contains(r#""code":1,"#), "{}", answer.stdout);
    }
}

#[test]
fn codes_of_the_agent_stay_out_of_the_specifications_range() {
    let pod = PodName { name: "a".into(), namespace: "b".into(), uid: None };
    let code = |code| {
        let failure = protocol::Failure { code, msg: "m".into(), details: "d".into() };
        refused(&ClientError::Refused(failure), &pod, "").code.number()
    };
    assert_eq!((code(11), code(120), code(3)), (11, 120, 199));
}
