//! What serving one pod's connections on one worker needs, in one place.

use std::net::{IpAddr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use mesh::{Refusal, Snapshot, Store, Workload};
use tokio::net::TcpStream;
use tokio::sync::{Semaphore, watch};
use tokio::time::timeout;

use crate::config::{Config, Timeouts};
use crate::connections::Connections;
use crate::demand::Demand;
use crate::dns::Host;
use crate::gate::Place;
use crate::hbone::pool::Pool;
use crate::identities::Identities;
use crate::pod::Pod;
use crate::served::Served;
use crate::socket::{self, Dialer};
use crate::telemetry::Metrics;
use crate::tls::Rules;

/// What all workers share.
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) store: Arc<Store>,
    /// Who brings what the store lacks, where the mesh is not there as a whole.
    pub(crate) demand: Option<Arc<dyn Demand>>,
    /// Changes with every publish of the store.
    pub(crate) published: watch::Receiver<()>,
    pub(crate) identities: Arc<Identities>,
    /// What every handshake obeys.
    pub(crate) rules: Arc<Rules>,
    pub(crate) metrics: Metrics,
    pub(crate) connections: Arc<Connections>,
    pub(crate) handshakes: Semaphore,
    pub(crate) pods: Mutex<Vec<Weak<Served>>>,
    /// The domain of Kubernetes' names.
    pub(crate) cluster_domain: Host,
}

/// One pod on one worker.
#[derive(Clone)]
pub(crate) struct Scope {
    pub(crate) shared: Arc<Shared>,
    pub(crate) served: Arc<Served>,
    pub(crate) pool: Pool,
}

/// An accepted connection and where it was going.
pub(crate) struct Captured {
    /// Among the connections of its pod, until it has ended.
    pub(crate) place: Place,
    pub(crate) stream: TcpStream,
    pub(crate) source: SocketAddr,
    pub(crate) original_destination: SocketAddr,
}

impl Captured {
    /// Takes an accepted socket over on the worker that will serve it.
    pub(crate) fn take(
        scope: &Scope,
        stream: std::net::TcpStream,
        source: SocketAddr,
        place: Place,
    ) -> std::io::Result<Self> {
        let stream = TcpStream::from_std(stream)?;
        socket::tune_accepted(&stream, scope.shared.config.keepalive);
        let original_destination = canonical(scope.served.pod.sockets.original_destination(&stream)?);
        Ok(Self { place, stream, source: canonical(source), original_destination })
    }
}

/// A dual-stack socket shows IPv4 peers as mapped addresses; the mesh knows them as what they are.
pub(crate) fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

impl Shared {
    /// How sockets are connected.
    pub(crate) fn dialer(&self) -> Dialer {
        Dialer {
            limit: self.config.timeouts.connect,
            keepalive: self.config.keepalive,
            original_source: self.config.original_source,
        }
    }

    /// For how long a relay may go on in which nothing moves.
    pub(crate) fn limits(&self) -> &Timeouts {
        &self.config.timeouts
    }

    /// Enters a pod among those that are served.
    pub(crate) fn enter(&self, served: &Arc<Served>) {
        let mut pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        pods.retain(|pod| pod.strong_count() > 0);
        pods.push(Arc::downgrade(served));
    }

    /// The pods that are served, or have connections still.
    pub(crate) fn pods(&self) -> Vec<Arc<Served>> {
        let pods = self.pods.lock().unwrap_or_else(PoisonError::into_inner);
        pods.iter().filter_map(Weak::upgrade).collect()
    }

    /// The workload with this address on our network.
    pub(crate) fn workload_at(&self, snapshot: &Snapshot, address: IpAddr) -> Option<Arc<Workload>> {
        snapshot.workload_by_address(mesh::Place::new(&self.config.network, address)).cloned()
    }

    /// Asks `question` of the current snapshot, and of each that follows, until it has an answer or `limit`
    /// has passed.
    pub(crate) async fn wait_for<T>(
        &self,
        limit: Duration,
        mut question: impl FnMut(&Snapshot) -> Option<T>,
    ) -> Option<T> {
        let mut published = self.published.clone();
        timeout(limit, async {
            loop {
                published.mark_unchanged();
                if let Some(answer) = question(&self.store.load()) {
                    return Some(answer);
                }
                // The sender lives in a subscription of the store: gone means that nothing will follow.
                published.changed().await.ok()?;
            }
        })
        .await
        .ok()
        .flatten()
    }
}

impl Scope {
    /// The pod's own workload, waited for while the control plane does not know it yet.
    pub(crate) async fn own_workload(&self) -> Result<Arc<Workload>, Refusal> {
        let limit = self.shared.config.timeouts.own_workload;
        self.shared.wait_for(limit, |snapshot| own_workload(snapshot, &self.served.pod)).await.ok_or_else(
            || Refusal::UnknownSource {
                namespace: self.served.pod.namespace.to_string(),
                name: self.served.pod.name.to_string(),
            },
        )
    }
}

/// A pod's workload, by uid or by name. One of another service account is not it: a name may be reused
/// faster than the control plane hears of it.
pub(crate) fn own_workload(snapshot: &Snapshot, pod: &Pod) -> Option<Arc<Workload>> {
    snapshot
        .workload(&pod.uid)
        .or_else(|| snapshot.workload_of_pod(&pod.namespace, &pod.name))
        .filter(|workload| {
            pod.service_account.as_ref().is_none_or(|account| workload.service_account == *account)
        })
        .cloned()
}
