//! One call of the plugin: what the runtime sets and hands over on stdin.

use std::ffi::OsString;

use cni::config::{Config, SUPPORTED_VERSIONS};
use cni::invocation::{Invocation, Verb};
use cni::plugin::{Answer, run};
use cni::protocol::{Command, MAX_MESSAGE, Request, VERSION, mesh_annotations};

/// The first line is `CNI_ARGS`, the rest stdin. Nobody is asked for anything: of the calls that would, what they would ask is made.
///
/// # Panics
/// When something does not hold.
pub fn cni_call(data: &[u8]) {
    let end = data.iter().position(|byte| *byte == b'\n').unwrap_or(data.len());
    let args = String::from_utf8_lossy(&data[..end]).into_owned();
    let stdin = data.get(end + 1..).unwrap_or_default();
    let call = |command: &'static str| {
        let args = args.clone();
        move |name: &str| match name {
            "CNI_COMMAND" => Some(OsString::from(command)),
            "CNI_CONTAINERID" => Some("c1".into()),
            "CNI_NETNS" => Some("/proc/self/ns/net".into()),
            "CNI_IFNAME" => Some("eth0".into()),
            "CNI_ARGS" => Some(OsString::from(args.clone())),
            _ => None,
        }
    };
    let versions = run(&call("VERSION"), stdin);
    assert!(!versions.failed && SUPPORTED_VERSIONS.contains(&stated_version(&versions).as_str()));

    let config = Config::parse(stdin);
    let usable = config.as_ref().is_ok_and(|config| config.check_version().is_ok());
    let status = run(&call("STATUS"), stdin);
    assert_eq!(status.failed, !usable);
    told(&status);

    let invocation = Invocation::read(&call("ADD"), Verb::Add);
    let (Ok(config), Ok(invocation), true) = (config, invocation, usable) else {
        let answer = run(&call("ADD"), stdin);
        assert!(answer.failed, "a call that is not understood starts no pod");
        return told(&answer);
    };
    assert!((1..=100).contains(&config.timeout().as_secs()));
    assert!(config.socket.is_absolute() && config.ambient_list.is_absolute());
    assert!(config.kubeconfig.as_ref().is_none_or(|path| path.is_absolute()));
    if let Some(pod) = &invocation.pod {
        assert!(args.contains(&format!("K8S_POD_NAME={}", pod.name)));
        assert!(args.contains(&format!("K8S_POD_NAMESPACE={}", pod.namespace)));
        assert!(!pod.name.is_empty() && !pod.namespace.is_empty() && pod.uid.as_deref() != Some(""));
    }
    let out = |namespace: &String| config.exclude_namespaces.contains(namespace);
    if invocation.pod.as_ref().is_none_or(|pod| out(&pod.namespace)) {
        let answer = run(&call("ADD"), stdin);
        assert!(!answer.failed, "{answer:?}");
        handed_on(&answer, stdin);
    }
    asked(&config, invocation);
}

/// What the plugins before this one made goes on byte for byte.
fn handed_on(answer: &Answer, stdin: &[u8]) {
    let result: serde_json::Value =
        serde_json::from_str(&answer.stdout).unwrap_or_else(|error| panic!("{error}: {answer:?}"));
    let is_empty = result.as_object().is_some_and(|all| all.len() == 1 && all.contains_key("cniVersion"));
    let bytes = answer.stdout.as_bytes();
    assert!(is_empty || stdin.windows(bytes.len()).any(|part| part == bytes), "{answer:?}");
}

/// The request that the agent would get fits into a message and arrives as it was meant.
fn asked(config: &Config, invocation: Invocation) {
    let Ok(ips) = config.pod_ips() else { return };
    let annotations = mesh_annotations(config.annotations());
    assert!(annotations.len() <= 32 && annotations.values().all(|value| value.len() <= 256));
    let is_ours = |key: &String| key.split('/').next().is_some_and(|domain| domain.ends_with("istio.io"));
    assert!(annotations.keys().all(is_ours));
    let Invocation { container_id, netns, ifname, pod } = invocation;
    let request = Request {
        version: VERSION,
        command: Command::Add,
        container_id,
        netns,
        ifname,
        pod,
        ips,
        annotations,
        network: config.name.clone(),
        valid: config.valid_containers().unwrap_or_default(),
    };
    if let Ok(bytes) = request.encode() {
        assert!(bytes.len() <= MAX_MESSAGE);
        assert_eq!(Request::decode(&bytes).ok(), Some(request));
    }
}

fn told(answer: &Answer) {
    if answer.failed {
        assert!(SUPPORTED_VERSIONS.contains(&stated_version(answer).as_str()));
        assert!(!answer.notes.is_empty());
    }
}

/// The version in which an answer is given.
fn stated_version(answer: &Answer) -> String {
    let value: serde_json::Value =
        serde_json::from_str(&answer.stdout).unwrap_or_else(|error| panic!("{error}: {answer:?}"));
    value.get("cniVersion").and_then(|version| version.as_str()).unwrap_or_default().to_owned()
}
