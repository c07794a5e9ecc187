//! Who knows whether another agent is to come: the Kubernetes API, which is asked once, at the end.
//!
//! What removes the DaemonSet (`helm uninstall`) removes the agent's rights in the same second, and so the answer may be that nobody may
//! ask. For that the DaemonSet is followed for as long as the agent lives: that it was seen to go is as good as an answer. That it cannot
//! be asked for is none.

use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use futures_util::StreamExt as _;
use kube::api::{ApiResource, DynamicObject, GetParams};
use kube::core::{GroupVersionKind, Request};
use kube::runtime::WatchStreamExt as _;
use kube::runtime::watcher::{self, Event, watcher};
use kube::{Api, Client};
use serde_json::{Map, Value};
use tokio::sync::watch;
use tokio::time::{sleep, timeout};

use super::wanted::{Owner, Seen};
use crate::config::{DaemonSet, Kubernetes};
use crate::kubernetes::connect;

/// How long one question may take.
const ASK: Duration = Duration::from_secs(3);
/// How long the news of its end are waited for, where nobody may ask any more.
const NEWS: Duration = Duration::from_secs(2);
/// How long nothing is tried after there was no way to the API.
const PAUSE: Duration = Duration::from_secs(15);

/// The agent's DaemonSet and the node, in the API.
#[derive(Debug)]
pub(super) struct InCluster {
    kubernetes: Kubernetes,
    daemon_set: DaemonSet,
    /// Whether the DaemonSet was seen to be gone, or to go.
    is_gone: watch::Sender<bool>,
}

impl InCluster {
    /// By this way to the API, which names the node, too.
    pub(super) fn new(kubernetes: Kubernetes, daemon_set: DaemonSet) -> Self {
        Self { kubernetes, daemon_set, is_gone: watch::Sender::new(false) }
    }

    /// Follows the DaemonSet until the process ends. What fails is tried again, and told by whoever asks at the end.
    pub(super) async fn follow(self: Arc<Self>) {
        loop {
            match connect(&self.kubernetes).await {
                Ok(client) => self.follow_by(client).await,
                Err(error) => tracing::debug!(%error, "the agent's DaemonSet is not followed"),
            }
            sleep(PAUSE).await;
        }
    }

    async fn follow_by(&self, client: Client) {
        let DaemonSet { namespace, name } = &self.daemon_set;
        let kind = ApiResource::from_gvk(&GroupVersionKind::gvk("apps", "v1", "DaemonSet"));
        let api: Api<DynamicObject> = Api::namespaced_with(client, namespace, &kind);
        let only = watcher::Config::default().fields(&format!("metadata.name={name}"));
        let mut events = pin!(watcher(api, only).default_backoff());
        let goes = |set: &DynamicObject| set.metadata.deletion_timestamp.is_some();
        let mut listed = None;
        while let Some(event) = events.next().await {
            let is_gone = match event {
                Ok(Event::Init) => {
                    listed = None;
                    continue;
                }
                Ok(Event::InitApply(set)) => {
                    listed = Some(goes(&set));
                    continue;
                }
                Ok(Event::InitDone) => listed.take().unwrap_or(true),
                Ok(Event::Apply(set)) => goes(&set),
                Ok(Event::Delete(_)) => true,
                Err(error) => {
                    tracing::debug!(%error, "the agent's DaemonSet cannot be followed just now");
                    continue;
                }
            };
            self.is_gone.send_replace(is_gone);
        }
    }

    async fn ask(&self) -> Result<Seen, String> {
        let client = connect(&self.kubernetes).await.map_err(|error| format!("{error:#}"))?;
        let sets = format!("/apis/apps/v1/namespaces/{}/daemonsets", self.daemon_set.namespace);
        let daemon_set = get(&client, &sets, &self.daemon_set.name).await?;
        if daemon_set.is_none() {
            return Ok(Seen::default());
        }
        let node = get(&client, "/api/v1/nodes", &self.kubernetes.node).await?;
        Ok(Seen { daemon_set, labels: node.as_ref().map(labels) })
    }

    /// Whether it was seen to go, or is within a moment.
    async fn was_seen_to_go(&self) -> bool {
        let mut news = self.is_gone.subscribe();
        let gone = timeout(NEWS, news.wait_for(|is_gone| *is_gone)).await;
        gone.is_ok_and(|news| news.is_ok())
    }
}

impl Owner for InCluster {
    fn look(&self) -> Pin<Box<dyn Future<Output = Result<Seen, String>> + Send + '_>> {
        Box::pin(async {
            let asked = timeout(ASK, self.ask()).await;
            let reason = match asked {
                Ok(Ok(seen)) => return Ok(seen),
                Ok(Err(reason)) => reason,
                Err(_) => "the Kubernetes API does not answer".to_owned(),
            };
            if self.was_seen_to_go().await {
                tracing::info!(
                    reason,
                    "the agent's DaemonSet cannot be asked for any more; it was seen to go"
                );
                return Ok(Seen::default());
            }
            Err(reason)
        })
    }
}

/// An object, or none if there is no such thing.
async fn get(client: &Client, path: &str, name: &str) -> Result<Option<Value>, String> {
    let told =
        |error: &dyn std::error::Error| format!("asking the Kubernetes API for {path}/{name}: {error}");
    let request = Request::new(path).get(name, &GetParams::default()).map_err(|error| told(&error))?;
    match client.request::<Value>(request).await {
        Ok(object) => Ok(Some(object)),
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(None),
        Err(error) => Err(told(&error)),
    }
}

fn labels(node: &Value) -> Map<String, Value> {
    node.pointer("/metadata/labels").and_then(Value::as_object).cloned().unwrap_or_default()
}
