//! The command's end against a stand-in for the API server (`tests/kube-api`) that forwards to a real admin interface: the client of
//! Kubernetes, the websockets and the HTTP in them are real, the node behind is made up. tests/netns/tests/kubeconfig.rs has real agents.

use std::collections::HashMap;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;

use kube_api::{Fault, KubeApi, PODS};
use serde_json::{Value, json};

use super::*;
use crate::admin_socket::protocol::Command;

#[tokio::test]
async fn lines_come_whole_however_they_are_cut() {
    let pieces = ["{\"a\":", "1}\n{}", "\n", "rest"];
    let pieces = pieces.map(|piece| Ok(axum::body::Bytes::from_static(piece.as_bytes())));
    let mut lines = Lines::new(futures_util::stream::iter(pieces));
    assert_eq!(lines.next().await.unwrap().unwrap(), b"{\"a\":1}\n");
    assert_eq!(lines.next().await.unwrap().unwrap(), b"{}\n");
    assert!(lines.next().await.unwrap().is_none());
    let endless = std::iter::repeat_with(|| Ok(axum::body::Bytes::from_static(&[b'x'; 4096])));
    let mut endless = Lines::new(futures_util::stream::iter(endless));
    assert!(endless.next().await.is_err());
    assert_eq!(endless.text().await.len(), LONGEST_REFUSAL);
}

#[test]
fn a_right_that_lacks_is_named() {
    let status = kube::core::Status {
        code: 403,
        message: "pods is forbidden".into(),
        ..kube::core::Status::default()
    };
    let told = format!("{:#}", explain(Error::Api(Box::new(status)), "list pods", "istio-system"));
    assert!(told.starts_with("not allowed: this user may not list pods in namespace istio-system"), "{told}");
    assert!(told.contains("pods is forbidden"), "{told}");
    let status = UpgradeConnectionError::ProtocolSwitch(axum::http::StatusCode::FORBIDDEN);
    let told = format!("{:#}", explain(Error::UpgradeConnection(status), "create pods/portforward", "x"));
    assert!(told.contains("may not create pods/portforward in namespace x"), "{told}");
}

/// A cluster of two nodes with an agent each, of which the second is not so far that it can answer.
struct Cluster {
    api: KubeApi,
    args: FarArgs,
    _dir: tempfile::TempDir,
    _runtime: Runtime,
}

fn agent(name: &str, node: &str) -> Value {
    json!({
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "istio-system", "uid": name, "labels": {"app": "ztunnel"}},
        "spec": {"nodeName": node},
        "status": {"phase": "Running", "conditions": [{"type": "Ready", "status": "True"}]},
    })
}

impl Cluster {
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut api = KubeApi::new(dir.path()).unwrap();
        api.start(TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let first = runtime.block_on(crate::admin::tests::World::start("workloads: []"));
        let second = runtime.block_on(crate::admin::tests::World::start("workloads: []"));
        let respond = |request: &Request, send: &mut crate::admin_socket::Teller<'_>| match &request.command {
            Command::Metrics => {
                send(Answer::Piece { text: "x".repeat(40_000) })?;
                Err(std::io::Error::other("broken"))
            }
            Command::Config => (0..100).try_for_each(|_| send(Answer::Piece { text: "y".repeat(40_000) })),
            _ => send(Answer::Levels { levels: format!("{:?}", request.pod) }),
        };
        assert!(first.answers.set(Arc::new(respond)).is_ok());
        let admins: HashMap<_, SocketAddr> = [("agent-1", first.address), ("agent-2", second.address)].into();
        api.carry(move |namespace, pod, port| {
            assert_eq!((namespace, port), ("istio-system", 15000));
            TcpStream::connect(admins.get(pod).ok_or_else(|| std::io::Error::other("no such sandbox"))?)
        });
        for (name, node) in [("agent-1", "n1"), ("agent-2", "n2"), ("agent-3", "n3")] {
            api.apply(&agent(name, node)).unwrap();
        }
        let args = FarArgs {
            node: None,
            kubeconfig: Some(api.kubeconfig()),
            context: None,
            namespace: "istio-system".into(),
            proxy_admin_port: 15000,
        };
        Self { api, args, _dir: dir, _runtime: runtime }
    }

    fn ask(&self, node: &str, command: Command) -> anyhow::Result<Vec<Answer>> {
        let mut answers = Vec::new();
        Far::find(&self.args, node)?
            .ask(&Request::new(command, Some("demo".into())), &mut |answer| answers.push(answer))?;
        Ok(answers)
    }

    /// Why it is not answered, and whether that is because nobody does.
    fn refusal(&self, node: &str) -> (bool, String) {
        let error = self.ask(node, Command::Pods).unwrap_err();
        (error.is::<NoAgent>(), format!("{error:#}"))
    }
}

#[test]
fn questions_go_through_the_api_server_and_answers_come_back_whole() {
    let cluster = Cluster::new();
    let far = Far::find(&cluster.args, "n1").unwrap();
    for _ in 0..2 {
        let mut answers = Vec::new();
        far.ask(&Request::new(Command::Pods, Some("demo".into())), &mut |answer| answers.push(answer))
            .unwrap();
        assert_eq!(answers, [Answer::Levels { levels: "Some(\"demo\")".into() }]);
    }
    // More than any buffer on the way has room for.
    let long = cluster.ask("n1", Command::Config).unwrap();
    assert_eq!(long.len(), 100);
    assert!(long.iter().all(|answer| matches!(answer, Answer::Piece { text } if text.len() == 40_000)));
    let cut = format!("{:#}", cluster.ask("n1", Command::Metrics).unwrap_err());
    assert!(cut.contains("ended its answer in the middle"), "{cut}");
    let asked = cluster.api.seen();
    assert!(asked.iter().any(|seen| seen.verb == "portforward"
        && seen.uri.contains("/namespaces/istio-system/pods/agent-1/portforward")));
    let listed = asked.iter().find(|seen| seen.verb == "list").unwrap();
    assert!(
        listed.uri.contains("fieldSelector=spec.nodeName%3Dn1")
            && listed.uri.contains("labelSelector=app%3Dztunnel"),
        "{}",
        listed.uri
    );
}

#[test]
fn what_is_in_the_way_is_said() {
    let mut cluster = Cluster::new();
    let (nobody, told) = cluster.refusal("n2");
    assert!(nobody && told.contains("503") && told.contains("not so far yet"), "{told}");
    let (nobody, told) = cluster.refusal("n3");
    assert!(nobody && told.contains("error forwarding port 15000: no such sandbox"), "{told}");
    let (nobody, told) = cluster.refusal("n4");
    assert!(nobody && told.contains("no pod app=ztunnel on a node n4"), "{told}");
    for (verb, right) in [("list", "list pods"), ("portforward", "create pods/portforward")] {
        cluster.api.fail(verb, Fault::Status(403), 1).unwrap();
        let (nobody, told) = cluster.refusal("n1");
        assert!(!nobody && told.contains(&format!("may not {right} in namespace istio-system")), "{told}");
    }
    cluster.api.fail("list", Fault::Garbage, 1).unwrap();
    let (nobody, told) = cluster.refusal("n1");
    assert!(!nobody && told.contains("listing the pods"), "{told}");
    cluster.api.patch(PODS, "istio-system", "agent-1", &json!({"status": {"phase": "Pending"}})).unwrap();
    let (nobody, told) = cluster.refusal("n1");
    assert!(nobody && told.contains("its pod agent-1 is Pending"), "{told}");
    cluster.api.stop().unwrap();
    let (nobody, told) = cluster.refusal("n1");
    assert!(!nobody && told.contains("listing the pods"), "{told}");
    cluster.args.context = Some("other".into());
    let (nobody, told) = cluster.refusal("n1");
    assert!(!nobody && told.contains("kubeconfig"), "{told}");
}
