//! The real binary without an agent: what the list on disk and the Kubernetes API make of a pod.
//!
//! The API is a stand-in, a TLS server in this process that answers one question as it is told; what a plugin sends and
//! believes is real.

#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    reason = "helpers of tests, outside #[test] functions"
)]

use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use base64::Engine as _;
use cni::ambient::{AmbientList, Selectors};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use serde_json::{Value, json};

const PREV: &str = r#"{"cniVersion":"1.0.0","ips":[{"address":"10.1.1.2/24"}]}"#;
const LIMIT: Duration = Duration::from_secs(20);
const ATTEMPTS: usize = 30;

fn authority() -> CertifiedIssuer<'static, KeyPair> {
    let mut params = CertificateParams::new([]).unwrap();
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap()
}

/// What the stand-in does with the question.
#[derive(Clone)]
enum Act {
    Answer(String),
    Hang,
}

/// An API server that takes one question.
struct Api {
    listener: TcpListener,
    tls: Arc<ServerConfig>,
    kubeconfig: Value,
}

impl Api {
    /// Listens at an address, with a certificate for `name`; the kubeconfig names this authority or another one.
    fn new(address: &str, name: &str, is_trusted: bool) -> Self {
        let (ca, key) = (authority(), KeyPair::generate().unwrap());
        let leaf = CertificateParams::new([name.to_owned()]).unwrap().signed_by(&key, &ca).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls =
            ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
        let key = rustls::pki_types::PrivatePkcs8KeyDer::from(key.serialize_der());
        let tls = tls.with_no_client_auth().with_single_cert(vec![leaf.der().clone()], key.into()).unwrap();
        let listener = TcpListener::bind(address).unwrap();
        let pem = if is_trusted { ca.pem() } else { authority().pem() };
        let mut cluster = json!({
            "server": format!("https://{}", listener.local_addr().unwrap()),
            "certificate-authority-data": base64::engine::general_purpose::STANDARD.encode(pem),
        });
        if name.parse::<std::net::IpAddr>().is_err() {
            cluster["tls-server-name"] = name.into();
        }
        let kubeconfig = json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "contexts": [{ "name": "c", "context": { "cluster": "k", "user": "u" } }],
            "clusters": [{ "name": "k", "cluster": cluster }],
            "users": [{ "name": "u", "user": { "token": "t0ken" } }],
        });
        Self { listener, tls: Arc::new(tls), kubeconfig }
    }

    fn trusted() -> Self {
        Self::new("127.0.0.1:0", "127.0.0.1", true)
    }

    /// Takes the question; returns it.
    fn once(self, act: Act) -> JoinHandle<String> {
        std::thread::spawn(move || {
            let (stream, _) = self.listener.accept().unwrap();
            stream.set_read_timeout(Some(LIMIT)).unwrap();
            let mut stream = StreamOwned::new(ServerConnection::new(self.tls).unwrap(), stream);
            let (mut question, mut byte) = (Vec::new(), [0]);
            // A client that does not believe the certificate asks nothing.
            while !question.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|length| length > 0) {
                question.extend_from_slice(&byte);
            }
            match act {
                Act::Answer(answer) => {
                    let _ = stream.write_all(answer.as_bytes());
                    stream.conn.send_close_notify();
                    let _ = stream.flush();
                }
                // Until the client has given up.
                Act::Hang => drop(stream.read(&mut byte)),
            }
            String::from_utf8(question).unwrap()
        })
    }
}

fn ok(metadata: &Value) -> Act {
    let body = json!({ "kind": "PartialObjectMetadata", "metadata": metadata }).to_string();
    Act::Answer(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
}

/// A pod as the API knows it.
fn pod(labels: &Value) -> Value {
    json!({ "name": "sleep", "namespace": "default", "uid": "u1", "labels": labels })
}

fn write_list(dir: &Path, complete: bool) {
    let list = AmbientList::new(["demo".to_owned()].into(), [].into(), complete, Selectors::default());
    list.write(&dir.join("ambient.json")).unwrap();
}

fn add(dir: &Path, namespace: &str) -> Output {
    plugin(
        "ADD",
        dir,
        &format!("K8S_POD_UID=u1;IgnoreUnknown=1;K8S_POD_NAMESPACE={namespace};K8S_POD_NAME=sleep"),
    )
}

/// Runs the plugin with everything in `dir`, where no agent listens.
fn plugin(verb: &str, dir: &Path, args: &str) -> Output {
    let stdin = json!({
        "cniVersion": "1.0.0", "name": "n", "type": "culvert-cni", "socket": dir.join("cni.sock"),
        "ambientList": dir.join("ambient.json"), "kubeconfig": dir.join("kubeconfig"),
        "agentPod": { "namespace": "istio-system", "namePrefix": "ztunnel-" },
        "prevResult": serde_json::from_str::<Value>(PREV).unwrap(),
    });
    let mut child = Command::new(env!("CARGO_BIN_EXE_culvert-cni"))
        .env_clear()
        .envs([("CNI_COMMAND", verb), ("CNI_CONTAINERID", "c1"), ("CNI_IFNAME", "eth0"), ("CNI_ARGS", args)])
        .env("CNI_NETNS", "/proc/self/ns/net")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child.stdin.take().unwrap().write_all(stdin.to_string().as_bytes()).unwrap();
    child.wait_with_output().unwrap()
}

fn passed(output: &Output) -> bool {
    let result: Value = serde_json::from_slice(&output.stdout).unwrap();
    output.status.success() && result == serde_json::from_str::<Value>(PREV).unwrap()
}

/// The details of the error that tells the kubelet to try again.
fn held(output: &Output) -> String {
    let error: Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!((output.status.code(), &error["code"]), (Some(1), &11.into()), "{error}");
    assert!(error["msg"].as_str().unwrap().contains("start the culvert agent"), "{error}");
    error["details"].as_str().unwrap().to_owned()
}

/// What becomes of a pod that the list does not settle, and what the API was asked.
fn asked(api: impl Fn() -> Api, act: &Act) -> (Output, String) {
    asked_in("default", api, act)
}

/// The same of a pod of another namespace.
///
/// A second is short on a busy machine: what was to be answered and was not in time is asked again.
fn asked_in(namespace: &str, api: impl Fn() -> Api, act: &Act) -> (Output, String) {
    let dir = tempfile::tempdir().unwrap();
    write_list(dir.path(), false);
    let mut attempts = 0..ATTEMPTS;
    loop {
        let api = api();
        std::fs::write(dir.path().join("kubeconfig"), api.kubeconfig.to_string()).unwrap();
        let served = api.once(act.clone());
        let (output, question) = (add(dir.path(), namespace), served.join().unwrap());
        let is_late = String::from_utf8_lossy(&output.stdout).contains("no answer in time");
        if !is_late || matches!(act, Act::Hang) || attempts.next().is_none() {
            return (output, question);
        }
    }
}

#[test]
fn the_labels_in_the_api_decide_over_both_families() {
    for (address, name) in [("127.0.0.1:0", "127.0.0.1"), ("[::1]:0", "::1"), ("127.0.0.1:0", "api.example")]
    {
        let (output, question) = asked(|| Api::new(address, name, true), &ok(&pod(&json!({}))));
        assert!(passed(&output), "{output:?}");
        assert!(question.starts_with("GET /api/v1/namespaces/default/pods/sleep HTTP/1.1\r\n"), "{question}");
        assert!(
            question.contains("Authorization: Bearer t0ken\r\n") && question.contains("PartialObject"),
            "{question}"
        );
        let note = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(note.contains("goes on without it") && !note.contains("t0ken"), "{note}");
        let labelled = ok(&pod(&json!({ "istio.io/dataplane-mode": "ambient" })));
        let (output, _) = asked(|| Api::new(address, name, true), &labelled);
        assert!(held(&output).contains("its labels say"), "{output:?}");
    }
}

#[test]
fn a_pod_that_declines_starts_in_a_namespace_of_the_mesh() {
    let pod = |labels: &Value| json!({ "name": "sleep", "namespace": "demo", "uid": "u1", "labels": labels });
    let declining = ok(&pod(&json!({ "istio.io/dataplane-mode": "none" })));
    let (output, question) = asked_in("demo", Api::trusted, &declining);
    assert!(passed(&output) && question.contains("/namespaces/demo/pods/sleep"), "{output:?}");
    let (output, _) = asked_in("demo", Api::trusted, &ok(&pod(&json!({}))));
    assert!(held(&output).contains("its labels say"), "{output:?}");
    let silent = Act::Answer("HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n".to_owned());
    let details = held(&asked_in("demo", Api::trusted, &silent).0);
    assert!(details.contains("its namespace is in the mesh") && details.contains("answers 500"), "{details}");
}

#[test]
fn an_answer_in_chunks_is_understood() {
    let body = json!({ "metadata": pod(&json!({})) }).to_string();
    let (first, second) = body.split_at(10);
    let head = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let answer = format!("{head}{:x}\r\n{first}\r\n{:x}\r\n{second}\r\n0\r\n\r\n", first.len(), second.len());
    assert!(passed(&asked(Api::trusted, &Act::Answer(answer)).0));
}

#[test]
fn what_is_no_answer_about_the_pod_holds_it_back() {
    let other_uid = json!({ "name": "sleep", "namespace": "default", "uid": "u2" });
    let status = |line: &str| Act::Answer(format!("HTTP/1.1 {line}\r\nContent-Length: 0\r\n\r\n"));
    let cases = [
        (status("403 Forbidden"), "may not read pods"),
        (status("401 Unauthorized"), "not valid any more"),
        (status("404 Not Found"), "does not know the pod"),
        (status("500 Oops"), "answers 500"),
        (ok(&json!({ "name": "other", "namespace": "default" })), "something else than the pod"),
        (ok(&other_uid), "UID \"u2\""),
        (Act::Answer("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n[]".to_owned()), "something else"),
        (Act::Answer("HTTP/1.1 200 OK\r\nContent-Length: 20\r\n\r\n{".to_owned()), "cut off"),
        (Act::Answer("220 mail ready\r\n".to_owned()), "asking the Kubernetes API"),
        (Act::Answer(format!("HTTP/1.1 200 OK\r\n\r\n{}", " ".repeat(2 << 20))), "more than"),
    ];
    for (act, why) in cases {
        let details = held(&asked(Api::trusted, &act).0);
        assert!(details.contains(why) && details.contains("nobody can tell"), "{why:?} in {details}");
    }
}

#[test]
fn a_pod_that_is_run_from_a_file_is_known_by_its_hash() {
    let of_file = json!({ "name": "sleep", "namespace": "default", "uid": "u2",
                          "annotations": { "kubernetes.io/config.hash": "u1" } });
    assert!(passed(&asked(Api::trusted, &ok(&of_file)).0));
}

#[test]
fn a_server_that_another_authority_vouches_for_is_not_asked() {
    let (output, question) = asked(|| Api::new("127.0.0.1:0", "127.0.0.1", false), &ok(&pod(&json!({}))));
    assert!(held(&output).contains("nobody can tell"), "{output:?}");
    assert_eq!(question, "", "the token goes to nobody who is not known");
    let (output, question) = asked(|| Api::new("127.0.0.1:0", "10.9.9.9", true), &ok(&pod(&json!({}))));
    held(&output);
    assert_eq!(question, "");
}

#[test]
fn a_silent_api_is_given_up() {
    let began = Instant::now();
    let details = held(&asked(Api::trusted, &Act::Hang).0);
    assert!(details.contains("no answer in time"), "{details}");
    assert!(began.elapsed() >= Duration::from_secs(1));
}

#[test]
fn the_list_settles_what_it_can_without_a_question() {
    let dir = tempfile::tempdir().unwrap();
    assert!(held(&add(dir.path(), "default")).contains("ambient.json"));
    write_list(dir.path(), false);
    assert!(held(&add(dir.path(), "demo")).contains("its namespace is in the mesh"));
    assert!(held(&add(dir.path(), "default")).contains("kubeconfig"));
    write_list(dir.path(), true);
    held(&add(dir.path(), "demo"));
    assert!(passed(&add(dir.path(), "default")));
}

#[test]
fn the_agents_own_pod_starts_without_anything() {
    let dir = tempfile::tempdir().unwrap();
    let call = |name: &str| {
        plugin("ADD", dir.path(), &format!("K8S_POD_NAMESPACE=istio-system;K8S_POD_NAME={name}"))
    };
    assert!(passed(&call("ztunnel-x7k2p")));
    held(&call("istiod-x7k2p"));
}
