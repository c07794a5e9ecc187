//! The pods that istio-cni has named, and which of them are served.
//!
//! Invariant: a pod that was named and not deleted is served, or waits to be tried again; one that is served in a namespace is
//! not touched by being named again with the same.

use std::collections::{HashMap, HashSet};
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use linux::netns::{Netns, NetnsError};
use mesh::Store;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;
use protocols::zds::WorkloadInfo;
use thiserror::Error;
use tunnel::{Pod, PodHandle, Tunnel};

use super::listeners;
use super::sockets::Sockets;
use crate::enrollment::{EnrollmentMetrics, PodKey, PodState, Shown};

/// Why a pod is not served.
#[derive(Debug, Error)]
pub(super) enum StartError {
    /// Its namespace.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// Its listeners.
    #[error("cannot listen: {0}")]
    Listen(#[from] io::Error),
}

/// Gauges of this side of the protocol.
#[derive(Clone, Debug, Default)]
pub(crate) struct ZdsMetrics {
    /// 1 while there is a connection to istio-cni.
    pub(super) connected: Gauge,
}

/// What pods are made of.
pub(crate) struct Means {
    /// Serves them.
    pub(crate) tunnel: Arc<Tunnel>,
    /// The mesh.
    pub(crate) store: Arc<Store>,
    /// The mark of sockets that the rules leave alone.
    pub(crate) mark: u32,
    /// Whether names are asked of the agent.
    pub(crate) dns: bool,
}

/// The pods.
pub(crate) struct Pods {
    means: Means,
    metrics: ZdsMetrics,
    enrollment: EnrollmentMetrics,
    states: Shown,
    named: Mutex<HashMap<String, Named>>,
}

/// A pod that was named with its namespace.
struct Named {
    key: PodKey,
    info: WorkloadInfo,
    netns: Netns,
    /// Serves it until it is dropped; none while it waits to be tried again.
    serving: Option<PodHandle>,
}

impl Pods {
    pub(crate) fn new(means: Means, registry: &mut Registry) -> Self {
        let (metrics, enrollment) = (ZdsMetrics::default(), EnrollmentMetrics::register(registry));
        registry.register(
            "culvert_zds_connected",
            "Whether there is a connection to istio-cni, which names the pods",
            metrics.connected.clone(),
        );
        let states = Shown::new(enrollment.gauges());
        Self { means, metrics, enrollment, states, named: Mutex::default() }
    }

    pub(super) fn metrics(&self) -> &ZdsMetrics {
        &self.metrics
    }

    /// Every pod's state, by name.
    pub(crate) fn states(&self) -> Vec<(PodKey, PodState)> {
        self.states.all()
    }

    pub(super) fn is_served(&self, uid: &str) -> bool {
        self.lock().get(uid).is_some_and(|named| named.serving.is_some())
    }

    /// Serves a pod. One that is served in this namespace already is left alone; in another one it is served anew.
    pub(super) fn add(&self, uid: &str, info: WorkloadInfo, netns: Netns) -> Result<(), StartError> {
        let mut pods = self.lock();
        if pods.get(uid).is_some_and(|pod| pod.netns.id() == netns.id() && pod.serving.is_some()) {
            return Ok(());
        }
        if let Some(before) = pods.remove(uid) {
            self.end(&before, &pods);
        }
        let key = PodKey { namespace: info.namespace.clone(), name: info.name.clone() };
        let mut named = Named { key, info, netns, serving: None };
        let outcome = self.start(&mut named);
        pods.insert(uid.to_owned(), named);
        outcome
    }

    /// Ends a pod; one that is not there is fine.
    pub(super) fn delete(&self, uid: &str) {
        let mut pods = self.lock();
        if let Some(gone) = pods.remove(uid) {
            self.end(&gone, &pods);
        }
    }

    /// Ends all pods but these.
    pub(super) fn retain(&self, named: &HashSet<String>) {
        let mut pods = self.lock();
        let gone: Vec<Named> = pods.extract_if(|uid, _| !named.contains(uid)).map(|(_, pod)| pod).collect();
        gone.iter().for_each(|pod| self.end(pod, &pods));
    }

    /// Tries the pods again that could not be served.
    pub(super) fn retry(&self) {
        for pod in self.lock().values_mut().filter(|pod| pod.serving.is_none()) {
            if let Err(error) = self.start(pod) {
                tracing::warn!(pod = %pod.key, %error, "still not served, to be tried again");
            }
        }
    }

    fn start(&self, named: &mut Named) -> Result<(), StartError> {
        match self.serve(named) {
            Ok(serving) => {
                named.serving = Some(serving);
                self.enrollment.started.inc();
                self.enrollment.active.inc();
                self.states.set(&named.key, PodState::Enrolled);
                tracing::info!(pod = %named.key, "pod served; istio-cni captures it");
                Ok(())
            }
            Err(error) => {
                self.enrollment.failed.inc();
                self.states.set(&named.key, PodState::Pending(error.to_string()));
                Err(error)
            }
        }
    }

    fn serve(&self, named: &Named) -> Result<PodHandle, StartError> {
        let Means { tunnel, store, mark, dns } = &self.means;
        let listeners = listeners::open(&named.netns, *dns)?;
        let sockets = Sockets::new(named.netns.try_clone()?, *mark);
        let PodKey { namespace, name } = &named.key;
        let snapshot = store.load();
        let uid = snapshot.workload_of_pod(namespace, name).map(|workload| Arc::clone(&workload.uid));
        let account = named.info.service_account.as_str();
        let pod = Pod {
            uid: uid.unwrap_or_else(|| format!("Kubernetes//Pod/{namespace}/{name}").into()),
            name: name.as_str().into(),
            namespace: namespace.as_str().into(),
            service_account: Some(account).filter(|account| !account.is_empty()).map(Arc::from),
            sockets: Arc::new(sockets),
            self_address: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, mesh::HBONE_PORT))),
        };
        Ok(tunnel.start(pod, listeners))
    }

    /// Tells of the end of a pod that was taken out of `left`.
    fn end(&self, pod: &Named, left: &HashMap<String, Named>) {
        // The next pod of the same name may be there before the end of the one before it is told.
        if !left.values().any(|other| other.key == pod.key) {
            self.states.remove(&pod.key);
        }
        if pod.serving.is_some() {
            self.enrollment.active.dec();
            self.enrollment.stopped.inc();
            tracing::info!(pod = %pod.key, "pod no longer served; its open connections go on");
        }
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, Named>> {
        self.named.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
