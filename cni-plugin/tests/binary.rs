//! The real binary against a stand-in for the agent: a socket in this process that answers as it is told.

#![forbid(unsafe_code)]
#![expect(clippy::unwrap_used, reason = "helpers of tests, outside #[test] functions")]

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cni::protocol::{self, Outcome, Request, Response};
use linux::fdpass::{Connection, Listener};
use serde_json::Value;

const PREV: &str = r#"{"cniVersion":"1.0.0","ips":[{"address":"10.1.1.2/24"},{"address":"2001:db8::2/64"}]}"#;

struct StandIn {
    dir: tempfile::TempDir,
}

impl StandIn {
    fn new() -> Self {
        Self { dir: tempfile::tempdir().unwrap() }
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("cni.sock")
    }

    /// Takes one connection and lets `serve` have it; returns the request and the descriptors that came.
    fn once(&self, serve: impl FnOnce(&Connection) + Send + 'static) -> JoinHandle<(Request, usize)> {
        let listener = Listener::bind(&self.path(), 0o600).unwrap();
        std::thread::spawn(move || {
            let connection = listener.accept().unwrap();
            connection.set_timeout(Duration::from_secs(10)).unwrap();
            let (bytes, descriptors) = connection.recv(protocol::MAX_MESSAGE).unwrap();
            serve(&connection);
            (Request::decode(&bytes).unwrap(), descriptors.len())
        })
    }
}

fn answering(bytes: Vec<u8>) -> impl FnOnce(&Connection) + Send + 'static {
    move |connection| connection.send(&bytes, &[]).unwrap()
}

fn plugin(command: &str, socket: &Path) -> Output {
    let stdin = format!(
        r#"{{"cniVersion":"1.0.0","name":"n","type":"culvert-cni","socket":{socket:?},"timeoutSeconds":1,
            "prevResult":{PREV}}}"#
    );
    let mut child = Command::new(env!("CARGO_BIN_EXE_culvert-cni"))
        .env_clear()
        .env("CNI_COMMAND", command)
        .env("CNI_CONTAINERID", "c1")
        .env("CNI_NETNS", "/proc/self/ns/net")
        .env("CNI_IFNAME", "eth0")
        .env("CNI_ARGS", "K8S_POD_UID=u1;IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=sleep")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn spec_error(output: &Output) -> Value {
    assert_eq!(output.status.code(), Some(1));
    serde_json::from_slice(&output.stdout).unwrap()
}

#[test]
fn an_enrolled_pod_gets_its_prev_result_and_the_agent_all_it_needs() {
    for outcome in [Outcome::Enrolled, Outcome::NotAmbient] {
        let agent = StandIn::new();
        let served = agent.once(answering(Response::done(outcome).encode().unwrap()));
        let output = plugin("ADD", &agent.path());
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(0), PREV.as_bytes()));
        let (request, descriptors) = served.join().unwrap();
        assert_eq!(descriptors, 1);
        let pod = request.pod.unwrap();
        assert_eq!(
            (pod.name.as_str(), pod.namespace.as_str(), pod.uid.as_deref()),
            ("sleep", "default", Some("u1"))
        );
        assert_eq!(request.ips.len(), 2);
        assert_eq!(request.netns, "/proc/self/ns/net");
    }
}

#[test]
fn the_agents_error_reaches_the_runtime() {
    let agent = StandIn::new();
    let served =
        agent.once(answering(Response::failed(120, "mount cgroup v2", "none found").encode().unwrap()));
    let error = spec_error(&plugin("ADD", &agent.path()));
    assert_eq!(
        (&error["code"], &error["msg"], &error["details"]),
        (&120.into(), &"mount cgroup v2".into(), &"none found".into())
    );
    served.join().unwrap();
}

#[test]
fn garbage_and_wrong_outcomes_hold_the_pod_back() {
    let cases: [&[u8]; 5] = [
        b"\x00\xff",
        b"{}",
        br#"{"version":9}"#,
        br#"{"version":1}"#,
        br#"{"version":1,"outcome":"released"}"#,
    ];
    for bytes in cases {
        let agent = StandIn::new();
        let served = agent.once(answering(bytes.to_vec()));
        let error = spec_error(&plugin("ADD", &agent.path()));
        assert_eq!(error["code"], 103, "{error}");
        served.join().unwrap();
    }
}

#[test]
fn a_silent_agent_is_waited_for_no_longer_than_configured() {
    let agent = StandIn::new();
    let served = agent.once(|connection| drop(connection.recv(16)));
    let started = Instant::now();
    let error = spec_error(&plugin("ADD", &agent.path()));
    assert_eq!(error["code"], 11);
    assert!(error["details"].as_str().unwrap().contains("no answer from the agent"), "{error}");
    assert!(started.elapsed() >= Duration::from_secs(1));
    served.join().unwrap();
}

#[test]
fn an_agent_that_hangs_up_or_is_not_there_holds_the_pod_back() {
    let agent = StandIn::new();
    let served = agent.once(|_| ());
    let error = spec_error(&plugin("CHECK", &agent.path()));
    assert!(error["details"].as_str().unwrap().contains("closed without an answer"), "{error}");
    served.join().unwrap();
    let error = spec_error(&plugin("ADD", &agent.path()));
    assert!(error["msg"].as_str().unwrap().contains("start the culvert agent"), "{error}");
}

#[test]
fn del_asks_the_agent_and_does_not_depend_on_it() {
    let agent = StandIn::new();
    let served = agent.once(answering(Response::done(Outcome::Released).encode().unwrap()));
    assert!(plugin("DEL", &agent.path()).status.success());
    let (request, descriptors) = served.join().unwrap();
    assert_eq!((request.command, descriptors), (protocol::Command::Del, 0));
    let again = plugin("DEL", &agent.path());
    assert!(again.status.success() && again.stdout.is_empty());
}

#[test]
fn gc_tells_the_agent_what_is_in_use_and_does_not_depend_on_it() {
    let call = |socket: &Path, more: &str| {
        let stdin = format!(r#"{{"cniVersion":"1.1.0","name":"pods","socket":{socket:?}{more}}}"#);
        let mut child = Command::new(env!("CARGO_BIN_EXE_culvert-cni"))
            .env_clear()
            .env("CNI_COMMAND", "GC")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(stdin.as_bytes()).unwrap();
        child.wait_with_output().unwrap()
    };
    let agent = StandIn::new();
    let served = agent.once(answering(Response::done(Outcome::Collected).encode().unwrap()));
    let valid = r#","cni.dev/valid-attachments":[{"containerID":"c1","ifname":"eth0"}]"#;
    let output = call(&agent.path(), valid);
    assert!(output.status.success() && output.stdout.is_empty() && output.stderr.is_empty(), "{output:?}");
    let (request, _) = served.join().unwrap();
    assert_eq!((request.command, request.network.as_str()), (protocol::Command::Gc, "pods"));
    assert_eq!(request.valid, ["c1"]);
    let note = |output: Output| {
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    assert!(note(call(&agent.path(), valid)).contains("looks for leftovers by itself"));
    assert!(
        note(call(&agent.path(), "")).contains("valid-attachments"),
        "nothing is unused that is not said to be"
    );
}
