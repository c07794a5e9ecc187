//! Against a stand-in for the API server over real HTTPS, which misbehaves as it is told (`tests/kube-api`). A real one is tried outside CI.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use kube_api::{Fault, KubeApi, NAMESPACES, PODS};
use serde_json::{Value, json};
use tracing_subscriber::layer::SubscriberExt as _;

use super::*;
use crate::config::Membership;
use crate::enrollment::{Mark, PodKey};
use crate::logging::Levels;
use crate::logging::tests::Written;

/// Generous, for the machine may be busy.
const LIMIT: Duration = Duration::from_secs(60);
/// Longer than any test.
const NEVER: Duration = Duration::from_secs(24 * 3600);

struct World {
    api: KubeApi,
    address: SocketAddr,
    kubernetes: Kubernetes,
    readiness: Readiness,
    _dir: tempfile::TempDir,
}

fn pod(name: &str, node: &str) -> Value {
    json!({
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "demo", "labels": {"app": "web"}},
        "spec": {"nodeName": node, "serviceAccountName": "default"},
        "status": {"phase": "Running", "podIP": "10.1.0.5"},
    })
}

fn namespace(mode: Option<&str>) -> Value {
    json!({
        "kind": "Namespace",
        "metadata": {"name": "demo", "labels": {"istio.io/dataplane-mode": mode.unwrap_or("off")}},
    })
}

fn key(name: &str) -> PodKey {
    PodKey { namespace: "demo".into(), name: name.into() }
}

fn settings(api: &KubeApi, resync: Duration) -> config::Kubernetes {
    config::Kubernetes { kubeconfig: Some(api.kubeconfig()), node: "n1".to_owned(), resync }
}

impl World {
    async fn new(prepare: impl FnOnce(&KubeApi)) -> Self {
        Self::with_resync(NEVER, prepare).await
    }

    async fn with_resync(resync: Duration, prepare: impl FnOnce(&KubeApi)) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut api = KubeApi::new(dir.path()).unwrap();
        api.apply(&namespace(Some("ambient"))).unwrap();
        prepare(&api);
        api.start(TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
        let settings = settings(&api, resync);
        let readiness = Readiness::default();
        let mut registry = Registry::default();
        let membership = Membership::default();
        let kubernetes = Kubernetes::start(&settings, &membership, &readiness, &mut registry).await.unwrap();
        Self { address: api.address().unwrap(), api, kubernetes, readiness, _dir: dir }
    }

    /// Waits until the view is as it should be.
    async fn until(&self, what: &str, is: impl FnMut(&Arc<View>) -> bool) {
        let mut view = self.kubernetes.view.clone();
        let waited = tokio::time::timeout(LIMIT, view.wait_for(is)).await;
        assert!(waited.is_ok(), "{what}: {:?}", self.kubernetes.view.borrow());
    }

    async fn synced(&self) {
        self.until("the first list", |view| view.is_complete).await;
    }

    /// Waits until an annotation is as it should be in the API.
    async fn says(&self, name: &str, expected: Option<&str>) {
        let waited = tokio::time::timeout(LIMIT, async {
            while self.says_now(name).as_deref() != expected {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        });
        assert!(waited.await.is_ok(), "{name} says {:?}, not {expected:?}", self.says_now(name));
    }

    fn says_now(&self, name: &str) -> Option<String> {
        self.api.annotation(PODS, "demo", name, object::REDIRECTION)
    }

    fn uid(&self, name: &str) -> Arc<str> {
        Arc::clone(&self.kubernetes.view.borrow().pods[&key(name)].uid)
    }

    /// Marks a pod as its machine would.
    fn mark(&self, name: &str, mark: Mark) {
        self.kubernetes.annotator.set(&key(name), Some(&self.uid(name)), mark);
    }

    fn restart(&mut self) {
        self.api.start(TcpListener::bind(self.address).unwrap()).unwrap();
    }

    fn requests(&self, verb: &str, part: &str) -> usize {
        self.api.seen().iter().filter(|seen| seen.verb == verb && seen.uri.contains(part)).count()
    }
}

fn is_in(view: &View, name: &str) -> bool {
    view.pods.get(&key(name)).is_some_and(|known| matches!(known.standing, Standing::In(_)))
}

#[tokio::test(flavor = "multi_thread")]
async fn pods_of_this_node_are_listed_in_pages_and_others_are_not_asked_for() {
    let world = World::new(|api| {
        for number in 0..1200 {
            api.apply(&pod(&format!("p{number}"), "n1")).unwrap();
        }
        api.apply(&pod("elsewhere", "n2")).unwrap();
    })
    .await;
    world.until("all pods", |view| view.pods.len() == 1200 && view.is_complete).await;
    assert_eq!(world.requests("list", "/pods"), 3);
    assert!(is_in(&world.kubernetes.view.borrow(), "p1199"));
    let ready = tokio::time::timeout(LIMIT, async {
        while !world.readiness.pending().is_empty() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    });
    ready.await.expect("ready with the first lists");
}

#[tokio::test(flavor = "multi_thread")]
async fn labels_are_followed_as_they_change() {
    let world = World::new(|api| drop(api.apply(&pod("a", "n1")).unwrap())).await;
    world.until("in by its namespace", |view| is_in(view, "a")).await;
    let label = |mode: Value| json!({"metadata": {"labels": {"istio.io/dataplane-mode": mode}}});
    world.api.patch(PODS, "demo", "a", &label("none".into())).unwrap();
    world.until("out by its own", |view| !is_in(view, "a")).await;
    world.api.patch(PODS, "demo", "a", &label(Value::Null)).unwrap();
    world.until("in again", |view| is_in(view, "a")).await;
    world.api.apply(&namespace(None)).unwrap();
    world.until("out with its namespace", |view| !is_in(view, "a") && view.namespaces.is_empty()).await;
    world.api.delete(PODS, "demo", "a");
    world.until("deleted", |view| view.pods.is_empty()).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_that_goes_and_comes_back_is_asked_from_where_it_was() {
    let mut world = World::new(|api| drop(api.apply(&pod("a", "n1")).unwrap())).await;
    world.synced().await;
    world.api.stop().unwrap();
    world.api.apply(&pod("b", "n1")).unwrap();
    assert!(is_in(&world.kubernetes.view.borrow(), "a"));
    world.restart();
    world.until("what happened meanwhile", |view| is_in(view, "b")).await;
    assert_eq!(world.requests("list", "/pods"), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_version_that_is_gone_is_followed_by_a_list() {
    let mut world = World::new(|api| drop(api.apply(&pod("a", "n1")).unwrap())).await;
    world.synced().await;
    world.api.stop().unwrap();
    world.api.delete(PODS, "demo", "a");
    world.api.apply(&pod("b", "n1")).unwrap();
    world.api.compact();
    world.restart();
    world.until("a list", |view| is_in(view, "b") && !view.pods.contains_key(&key("a"))).await;
    assert!(world.requests("list", "/pods") > 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_deletion_that_nobody_told_of_is_found_by_the_next_list() {
    let resync = Duration::from_millis(300);
    let world = World::with_resync(resync, |api| drop(api.apply(&pod("a", "n1")).unwrap())).await;
    world.until("the pod", |view| is_in(view, "a")).await;
    world.api.delete_silently(PODS, "demo", "a");
    world.until("gone", |view| view.pods.is_empty() && view.is_complete).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn errors_garbage_and_broken_answers_are_outlived() {
    let world = World::new(|api| {
        api.apply(&pod("a", "n1")).unwrap();
        for (fault, times) in [(Fault::Status(500), 2), (Fault::Garbage, 2), (Fault::Cut, 2)] {
            api.fail("list", fault, times).unwrap();
            api.fail("watch", fault, times).unwrap();
        }
    })
    .await;
    world.until("the pod", |view| is_in(view, "a")).await;
    world.api.apply(&pod("b", "n1")).unwrap();
    world.until("a change", |view| is_in(view, "b")).await;
    for fault in [Fault::Status(503), Fault::Status(403), Fault::Garbage, Fault::Cut] {
        world.api.fail("watch", fault, 2).unwrap();
        world.api.hang_up();
    }
    world.api.apply(&pod("c", "n1")).unwrap();
    world.until("a change after all that", |view| is_in(view, "c")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_captured_is_said_and_taken_back() {
    let world = World::new(|api| drop(api.apply(&pod("a", "n1")).unwrap())).await;
    world.synced().await;
    world.mark("a", Mark::NotEnabled);
    world.mark("a", Mark::Leave);
    world.mark("a", Mark::Enabled);
    world.says("a", Some("enabled")).await;
    world.mark("a", Mark::Pending);
    world.says("a", Some("pending")).await;
    world.mark("a", Mark::Enabled);
    world.says("a", Some("enabled")).await;
    world.mark("a", Mark::Absent);
    world.kubernetes.annotator.settled(&key("a")).await;
    assert_eq!(world.says_now("a"), None);
    // Of what was never said nothing is taken back, and every write is of the status alone.
    let patches: Vec<_> = world.api.seen().into_iter().filter(|seen| seen.verb == "patch").collect();
    assert_eq!(patches.len(), 4);
    assert!(patches.iter().all(|seen| seen.uri.contains("/namespaces/demo/pods/a/status")));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_write_that_fails_is_tried_again_and_one_that_was_done_all_the_same_is_undone() {
    let world = World::new(|api| drop(api.apply(&pod("a", "n1")).unwrap())).await;
    world.synced().await;
    world.api.fail("patch", Fault::Status(500), 2).unwrap();
    world.mark("a", Mark::Enabled);
    world.says("a", Some("enabled")).await;
    world.mark("a", Mark::Absent);
    world.says("a", None).await;
    world.api.fail("patch", Fault::DoneBut(504), 1).unwrap();
    world.mark("a", Mark::Enabled);
    world.says("a", Some("enabled")).await;
    world.mark("a", Mark::Absent);
    world.kubernetes.annotator.settled(&key("a")).await;
    assert_eq!(world.says_now("a"), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn another_pod_of_the_same_name_is_not_annotated_for_the_first() {
    let world = World::new(|api| drop(api.apply(&pod("a", "n1")).unwrap())).await;
    world.synced().await;
    let first = world.uid("a");
    world.mark("a", Mark::Enabled);
    world.says("a", Some("enabled")).await;
    world.api.delete(PODS, "demo", "a");
    world.api.apply(&pod("a", "n1")).unwrap();
    world.until("another pod", |view| view.pods.get(&key("a")).is_some_and(|known| known.uid != first)).await;
    world.kubernetes.annotator.set(&key("a"), Some(&first), Mark::Enabled);
    world.kubernetes.annotator.settled(&key("a")).await;
    assert_eq!(world.says_now("a"), None);
    world.mark("a", Mark::Enabled);
    world.says("a", Some("enabled")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_else_says_is_put_right() {
    let annotated = |name: &str, value: &str| {
        let mut pod = pod(name, "n1");
        pod["metadata"]["annotations"] = json!({ object::REDIRECTION: value });
        pod
    };
    let world = World::new(|api| {
        api.apply(&pod("in", "n1")).unwrap();
        // Left by an agent that has died: one that is not in the mesh any more, and one of which nobody knows yet.
        let mut out = annotated("out", "enabled");
        out["metadata"]["labels"]["istio.io/dataplane-mode"] = "none".into();
        api.apply(&out).unwrap();
        api.apply(&annotated("unknown", "enabled")).unwrap();
    })
    .await;
    world.says("out", None).await;
    world.synced().await;
    world.mark("in", Mark::Enabled);
    world.says("in", Some("enabled")).await;
    world.api.apply(&annotated("in", "disabled")).unwrap();
    world.says("in", Some("enabled")).await;
    assert_eq!(world.says_now("unknown").as_deref(), Some("enabled"));
    world.mark("unknown", Mark::NotEnabled);
    world.says("unknown", Some("pending")).await;
    world.api.delete(NAMESPACES, "", "demo");
    world.until("no namespace", |view| !is_in(view, "in")).await;
    assert_eq!(world.says_now("in").as_deref(), Some("enabled"));
}

/// On one thread, for which alone the log is.
#[tokio::test]
async fn an_answer_that_cannot_be_read_is_written_down_only_for_who_asks_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let mut api = KubeApi::new(dir.path()).unwrap();
    api.start(TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
    let client = connect(&settings(&api, NEVER)).await.unwrap();
    let pods = ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", "Pod"));
    let pods: Api<Told> = Api::all_with(client, &pods);
    for (words, is_written) in [("debug", false), ("kube_client::client=warn,off", true)] {
        let written = Written::default();
        let writer = written.clone();
        let layer = tracing_subscriber::fmt::layer().with_writer(move || writer.clone());
        let log = tracing_subscriber::registry().with(Levels::filter(words).unwrap()).with(layer);
        let _guard = tracing::subscriber::set_default(log);
        api.fail("list", Fault::Garbage, 1).unwrap();
        pods.list(&kube::api::ListParams::default()).await.unwrap_err();
        let text = String::from_utf8_lossy(&written.0.lock().unwrap()).into_owned();
        assert_eq!(text.contains("<html>"), is_written, "{words}: {text}");
    }
}
