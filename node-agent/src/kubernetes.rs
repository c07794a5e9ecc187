//! The API of Kubernetes, as far as this node goes: which pods it says are here and in the mesh, and the annotation by which it is told
//! that they are captured.
//!
//! Pods of this node and all namespaces are listed and watched ([`follow`]), and what they come to is a [`View`], replaced with each
//! change. Invariant: an API that is away, slow or wrong changes nothing of what is captured; the last view stays in force, and it is asked
//! again for ever. What is kept of a pod is what decides about it, and no more.

mod annotator;
mod backoff;
mod connect;
mod follow;
mod metrics;
mod object;
mod plan;
mod store;
#[cfg(test)]
mod tests;
mod told;
mod view;

use std::sync::Arc;

use kube::Api;
use kube::core::{ApiResource, GroupVersionKind};
use kube::runtime::watcher;
use prometheus_client::registry::Registry;
use tokio::sync::{mpsc, watch};

pub(crate) use self::annotator::Annotator;
pub(crate) use self::connect::connect;
#[cfg(test)]
pub(crate) use self::plan::{Plan, Word};
pub(crate) use self::view::{Known, Standing, View};

use self::follow::{Change, Followed};
use self::metrics::KubernetesMetrics;
use self::store::Store;
use self::told::Told;
use crate::config;
use crate::readiness::{Pending, Readiness};

/// Changes that wait for their turn.
const QUEUE: usize = 1024;
/// Objects that are listed at a time.
const PAGE: u32 = 500;

/// What is followed, and who writes.
pub(crate) struct Kubernetes {
    /// What is known.
    pub(crate) view: watch::Receiver<Arc<View>>,
    /// Writes annotations.
    pub(crate) annotator: Arc<Annotator>,
}

/// Something that has happened.
enum News {
    Pod(Change<object::Pod>),
    Namespace(Change<object::Namespace>),
}

impl Kubernetes {
    /// Begins to follow the API. Must be called within the control runtime.
    ///
    /// # Errors
    /// When the configuration names no API that could be asked. One that does not answer is no error.
    pub(crate) async fn start(
        settings: &config::Kubernetes,
        membership: &config::Membership,
        readiness: &Readiness,
        registry: &mut Registry,
    ) -> anyhow::Result<Self> {
        let client = connect(settings).await?;
        let metrics = KubernetesMetrics::register(registry);
        let (sender, view) = watch::channel(Arc::new(View::default()));
        let (news, queue) = mpsc::channel(QUEUE);
        let [pods, namespaces] =
            ["Pod", "Namespace"].map(|kind| ApiResource::from_gvk(&GroupVersionKind::gvk("", "v1", kind)));
        let of_node =
            watcher::Config::default().fields(&format!("spec.nodeName={}", settings.node)).page_size(PAGE);
        let all = watcher::Config::default().page_size(PAGE);
        let (resync, told) = (settings.resync, news.clone());
        let followed = Followed { what: "pods", resync, metrics: metrics.clone() };
        tokio::spawn(follow::follow::<Told, _, _>(
            Api::all_with(client.clone(), &pods),
            of_node,
            followed,
            move |change| send(told.clone(), change.filter_map(object::Pod::read).map(News::Pod)),
        ));
        let followed = Followed { what: "namespaces", resync, metrics: metrics.clone() };
        tokio::spawn(follow::follow::<Told, _, _>(
            Api::all_with(client.clone(), &namespaces),
            all,
            followed,
            move |change| send(news.clone(), change.filter_map(object::Namespace::read).map(News::Namespace)),
        ));
        let pending = readiness.wait_for("pods and namespaces of the Kubernetes API");
        tokio::spawn(publish(Store::new(membership.clone()), queue, sender, pending));
        let annotator = Annotator::start(client, pods, view.clone(), metrics);
        Ok(Self { view, annotator })
    }
}

/// The other end lives as long as the agent. What cannot be read as an object of its kind has not happened.
async fn send(news: mpsc::Sender<News>, change: Option<News>) {
    if let Some(change) = change {
        let _ = news.send(change).await;
    }
}

/// Turns what happens into views, many changes at once where many have come.
async fn publish(
    mut store: Store,
    mut queue: mpsc::Receiver<News>,
    view: watch::Sender<Arc<View>>,
    pending: Pending,
) {
    let mut pending = Some(pending);
    while let Some(first) = queue.recv().await {
        let mut next = Some(first);
        while let Some(news) = next {
            match news {
                News::Pod(change) => store.pods(change),
                News::Namespace(change) => store.namespaces(change),
            }
            next = queue.try_recv().ok();
        }
        let now = store.view();
        if now.is_complete {
            pending = None;
        }
        view.send_replace(Arc::new(now));
    }
    drop(pending);
}
