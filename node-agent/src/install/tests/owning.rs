//! Who is asked at the end, against a stand-in for the API server over real HTTPS.

use std::net::TcpListener;

use kube_api::{Fault, KubeApi};
use serde_json::json;

use super::*;
use crate::config::{DaemonSet, Kubernetes};
use crate::install::owner::InCluster;

struct World {
    api: KubeApi,
    host: Host,
    _dir: TempDir,
}

impl World {
    /// A node with the plugin installed, and an API.
    fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let mut api = KubeApi::new(dir.path()).unwrap();
        api.start(TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
        let node = json!({ "apiVersion": "v1", "kind": "Node", "metadata": { "name": "n1", "labels": { "mesh": "culvert" } } });
        api.apply(&node).unwrap();
        let host = Host::with(&[("10-calico.conflist", CALICO)]);
        host.plan.install().unwrap();
        Self { api, host, _dir: dir }
    }

    fn set(&self, changes: &Value) {
        let mut set = json!({
            "apiVersion": "apps/v1",
            "kind": "DaemonSet",
            "metadata": { "name": "ztunnel", "namespace": "istio-system" },
            "spec": { "template": { "spec": { "nodeSelector": { "mesh": "culvert" } } } },
        });
        if let Some(selector) = changes.get("selector") {
            set["spec"]["template"]["spec"]["nodeSelector"] = selector.clone();
        }
        if let Some(time) = changes.get("deletion") {
            set["metadata"]["deletionTimestamp"] = time.clone();
        }
        self.api.apply(&set).unwrap();
    }

    /// The end of the agent; whether it was the last one.
    async fn end(&self) -> bool {
        self.end_by(self.owner()).await
    }

    fn owner(&self) -> Arc<InCluster> {
        let kubernetes = Kubernetes {
            kubeconfig: Some(self.api.kubeconfig()),
            node: "n1".to_owned(),
            resync: Duration::from_secs(600),
        };
        let set = DaemonSet { namespace: "istio-system".to_owned(), name: "ztunnel".to_owned() };
        Arc::new(InCluster::new(kubernetes, set))
    }

    async fn end_by(&self, owner: Arc<InCluster>) -> bool {
        let mut installation = Installation {
            plan: Some(Arc::new(self.host.plan.clone())),
            keeper: None,
            keeping: None,
            owner: Some(owner),
            node: "n1".to_owned(),
        };
        let is_to_go = installation.is_to_go().await;
        if is_to_go {
            installation.remove().await;
        }
        is_to_go
    }

    fn is_installed(&self) -> bool {
        self.host.types("10-calico.conflist").last().is_some_and(|last| last == PLUGIN)
            && self.host.path(KUBECONFIG).exists()
            && self.host.dir.path().join("bin").join(PLUGIN).exists()
    }

    fn is_clean(&self) -> bool {
        self.host.read("10-calico.conflist") == CALICO
            && !self.host.path(KUBECONFIG).exists()
            && !self.host.dir.path().join("bin").join(PLUGIN).exists()
    }
}

#[tokio::test]
async fn a_daemon_set_that_wants_the_node_means_an_upgrade() {
    let world = World::new();
    world.set(&json!({}));
    assert!(world.is_installed());
    assert!(!world.end().await && world.is_installed());
    let asked: Vec<String> = world.api.seen().into_iter().map(|seen| seen.uri).collect();
    assert!(
        asked.iter().any(|uri| uri.starts_with("/apis/apps/v1/namespaces/istio-system/daemonsets/ztunnel")),
        "{asked:?}"
    );
}

#[tokio::test]
async fn a_daemon_set_that_is_gone_or_goes_or_wants_other_nodes_means_the_end() {
    for changes in [
        None,
        Some(json!({ "deletion": "2026-01-01T00:00:00Z" })),
        Some(json!({ "selector": { "mesh": "ztunnel" } })),
    ] {
        let world = World::new();
        changes.iter().for_each(|changes| world.set(changes));
        assert!(world.end().await && world.is_clean(), "{changes:?}");
    }
}

#[tokio::test]
async fn an_api_that_gives_no_answer_means_nothing() {
    let mut world = World::new();
    for fault in [Fault::Status(403), Fault::Status(500), Fault::Garbage, Fault::Cut] {
        world.api.fail("get", fault, 1).unwrap();
        assert!(!world.end().await && world.is_installed(), "{fault:?}");
        world.api.behave();
    }
    world.api.stop().unwrap();
    assert!(!world.end().await && world.is_installed(), "nobody listens");
    world.api.start(TcpListener::bind("127.0.0.1:0").unwrap()).unwrap();
    // The DaemonSet is there; what the node is like is not known.
    world.set(&json!({}));
    world.api.delete(kube_api::NODES, "", "n1");
    assert!(!world.end().await && world.is_installed(), "the node is not known");
}

/// `helm uninstall` takes the agent's rights along with its DaemonSet.
#[tokio::test]
async fn a_daemon_set_that_was_seen_to_go_means_the_end_though_nobody_may_ask_any_more() {
    for is_deleted in [false, true] {
        let world = World::new();
        world.set(&json!({}));
        let owner = world.owner();
        let following = tokio::spawn(Arc::clone(&owner).follow());
        let is_watched = || world.api.seen().iter().any(|seen| seen.verb == "watch");
        super::keeping::eventually("the DaemonSet to be watched", is_watched).await;
        if is_deleted {
            world.api.delete(kube_api::DAEMON_SETS, "istio-system", "ztunnel");
        }
        world.api.fail("get", Fault::Status(403), 10).unwrap();
        assert_eq!(world.end_by(owner).await, is_deleted);
        assert_eq!(world.is_installed(), !is_deleted);
        following.abort();
    }
}
