//! The data path: captured connections in, mutual-TLS tunnels or plain connections out, and back.
//!
//! A [`Tunnel`] serves enrolled pods. For each it accepts from three kinds of listeners: what the pod's
//! applications open (`outbound`), what arrives in tunnels (`inbound`) and what arrives in plaintext
//! (`plaintext`). Where a connection goes and whether it may is asked of the `mesh` crate; sockets in the
//! pod's netns come from [`PodSockets`], certificates from a [`CertificateProvider`].
//!
//! Invariant: nothing is carried in plaintext that the mesh wants in a tunnel. Every wait has a limit
//! ([`Timeouts`]), and a failure is told to the application as a closed connection, to the peer as a status
//! code, to the operator in the access log and to dashboards in the `istio_tcp_*` metrics.

#![forbid(unsafe_code)]

mod accept;
mod config;
mod connections;
mod crowds;
mod dealer;
mod demand;
mod dns;
mod error;
#[cfg(feature = "fuzzing")]
pub mod fuzzing;
mod gate;
mod hbone;
mod identities;
mod inbound;
mod judgement;
mod listening;
mod outbound;
mod pace;
mod plaintext;
mod pod;
mod policy_list;
pub mod probe;
mod relay;
mod same_node;
#[cfg(all(test, feature = "schedules"))]
mod schedules;
mod scope;
mod seat;
mod served;
mod share;
mod socket;
mod sync;
mod telemetry;
#[cfg(test)]
mod tests;
pub(crate) mod tls;
pub mod trace;
mod worker;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use mesh::Store;
use prometheus_client::registry::Registry;
use tokio::sync::{Semaphore, watch};

pub use config::{Config, DnsConfig, Keepalive, PoolConfig, Timeouts};
pub use connections::{ConnectionInfo, Direction};
pub use demand::Demand;
pub use hbone::{ConnectError, Http2Config};
pub use pod::{Listeners, Pod, PodHandle, PodSockets};
pub use relay::RelayError;
pub use same_node::SameNode;
pub use telemetry::{Carriage, ConnectTimes, Peer, Span, Spans};
pub use tls::{
    Certificate, CertificateError, CertificateProvider, HandshakeError, RevocationError, TlsOptions,
};

use accept::Turn;
use connections::{Connections, TableSize};
use gate::Place;
use hbone::client::Connector;
use hbone::pool::Pool;
use identities::Identities;
use listening::Listening;
use scope::{Captured, Scope, Shared};
use seat::{Duty, Seats};
use served::Served;
use share::Share;
use telemetry::Metrics;
use worker::Workers;

/// The data path of a node. Dropping it ends every connection.
pub struct Tunnel {
    shared: Arc<Shared>,
    workers: Arc<Workers>,
}

impl Tunnel {
    /// Starts the worker threads and registers the metrics. With a `demand` the store holds what was asked for, and not the
    /// whole mesh.
    ///
    /// # Errors
    /// When a thread or its runtime cannot be made, or the options of TLS contradict each other or hold a list that cannot be
    /// read.
    pub fn new(
        mut config: Config,
        store: Arc<Store>,
        certificates: Arc<dyn CertificateProvider>,
        demand: Option<Arc<dyn Demand>>,
        registry: &mut Registry,
    ) -> io::Result<Self> {
        config.max_connections_per_pod = gate::connections_per_pod(config.max_connections_per_pod);
        let connections = Arc::new(Connections::default());
        registry.register_collector(Box::new(TableSize(Arc::clone(&connections))));
        let (publish, published) = watch::channel(());
        store.subscribe(Box::new(move || publish.send_modify(|()| {})));
        let cluster_domain = dns::Host::parse(&config.dns.cluster_domain);
        let cluster_domain = cluster_domain.ok_or_else(|| {
            io::Error::other(format!("cluster domain `{}` is no name", config.dns.cluster_domain))
        })?;
        let rules = tls::Rules::new(&config.tls).map_err(io::Error::other)?;
        let rules = Arc::new(rules);
        let shared = Arc::new(Shared {
            cluster_domain,
            handshakes: Semaphore::new(config.max_handshakes),
            identities: Arc::new(Identities::new(
                certificates,
                config.timeouts.certificate,
                Arc::clone(&rules),
            )),
            rules,
            metrics: Metrics::register(registry, config.max_label_sets),
            config,
            store,
            demand,
            published,
            connections,
            pods: Mutex::default(),
        });
        judgement::follow_changes(&shared)?;
        let workers = Workers::start(shared.config.workers, || {
            let connector = Connector {
                http2: shared.config.http2.clone(),
                timeouts: shared.config.timeouts.clone(),
                dialer: shared.dialer(),
            };
            Pool::new(connector, shared.config.pool.clone())
        })?;
        Ok(Self { shared, workers: Arc::new(workers) })
    }

    /// Serves a pod until the handle is dropped. Its accept loops begin on one worker, and deal what comes to all of them.
    pub fn start(&self, pod: Pod, listeners: Listeners) -> PodHandle {
        let (handle, serving) = watch::channel(());
        let shared = &self.shared;
        let served =
            Served::new(pod, &listeners, serving, &shared.config, &shared.metrics, &shared.identities);
        let served = Arc::new(served);
        shared.enter(&served);
        let kinds = [(listeners.outbound, Kind::Outbound), (listeners.plaintext, Kind::Plaintext)];
        let kinds = kinds.into_iter().chain([(listeners.hbone, Kind::Hbone)]);
        let seat = self.workers.turn(Duty::All);
        if let Some((seat, home)) = seat.and_then(|seat| Some((seat, self.workers.get(seat)?))) {
            let scope =
                Scope { shared: Arc::clone(shared), served: Arc::clone(&served), pool: home.pool.clone() };
            home.runtime.spawn(warm(scope));
            for socket in listeners.dns {
                let (shared, served) = (Arc::clone(shared), Arc::clone(&served));
                home.runtime.spawn(dns::serve(socket, Scope { shared, served, pool: home.pool.clone() }));
            }
            let shares: Arc<Seats<OnceLock<Share>>> = Arc::new(self.workers.seats().map(|_| OnceLock::new()));
            for (listener, kind) in kinds.flat_map(|(of, kind)| of.into_iter().map(move |one| (one, kind))) {
                socket::tune(&listener, self.shared.config.keepalive);
                let (of, all) = ((shared, &served), (&self.workers, &shares));
                Listening::new((listener, kind), seat, of, all).start(&self.workers);
            }
        }
        PodHandle::new(handle)
    }

    /// Whether no pod is served, and nothing that was accepted is open any more.
    pub fn is_idle(&self) -> bool {
        self.shared.pods().is_empty()
    }

    /// Puts lists of revoked certificates in the place of those in force, and ends what is open with a peer whose chain they
    /// revoke; tells how many tunnels that were. Sessions that began when there could be no lists ([`TlsOptions::revoked`])
    /// are not found.
    ///
    /// # Errors
    /// A [`RevocationError`] if one of them cannot be read; then those in force stay.
    pub fn revoke(
        &self,
        lists: &[rustls_pki_types::CertificateRevocationListDer<'_>],
    ) -> Result<usize, RevocationError> {
        self.shared.rules.revocations.replace(lists)
    }

    /// The runtimes of its worker threads, to measure how busy they are; those of the threads for crowds come last.
    pub fn runtimes(&self) -> Vec<tokio::runtime::Handle> {
        self.workers.seats().iter().map(|worker| worker.runtime.clone()).collect()
    }

    /// How long the connections of each workload took to come about, since somebody asks; they are counted for so long from now on. In no
    /// order, and of 1000 workloads at most.
    pub fn connect_times(&self, for_another: Duration) -> Vec<ConnectTimes> {
        self.shared.metrics.clocks.ask(for_another)
    }

    /// The connections there are now, in no order.
    pub fn connections(&self) -> Vec<ConnectionInfo> {
        self.shared.connections.list()
    }
}

/// Has the certificate of a new pod fetched, as soon as it is known who the pod is.
async fn warm(scope: Scope) {
    let mut serving = scope.served.serving.clone();
    tokio::select! {
        own = scope.own_workload() => {
            if let Ok(own) = own {
                scope.served.user.warm(&own.identity());
            }
        }
        // No value is ever sent: the pod is gone.
        _ = serving.changed() => {}
    }
}

/// What a listener's connections are.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Outbound,
    Plaintext,
    Hbone,
}

impl Kind {
    /// A pod's call to itself comes to the HBONE listener from ourselves by loopback, with an identity to prove it.
    fn admits(self, scope: &Scope, captured: &Captured) -> bool {
        let (source, destination) = (captured.source, captured.original_destination);
        let to_itself = matches!(self, Self::Hbone) && destination.ip().is_loopback();
        to_itself || scope.served.gate.admits(source, destination)
    }

    async fn serve(
        self,
        scope: Scope,
        (stream, source): (std::net::TcpStream, SocketAddr),
        place: Place,
        turn: Turn,
    ) {
        drop(turn);
        let captured = match Captured::take(&scope, stream, source, place) {
            Ok(captured) => captured,
            Err(error) => return tracing::debug!(%source, %error, "captured connection is gone"),
        };
        if !self.admits(&scope, &captured) {
            return relay::reset(captured.stream);
        }
        match self {
            Self::Outbound => {
                if Box::pin(dns::takes(&scope, &captured)).await {
                    return Box::pin(dns::serve_connection(scope, captured)).await;
                }
                Box::pin(outbound::serve(scope, captured)).await;
            }
            Self::Plaintext => Box::pin(plaintext::serve(scope, captured)).await,
            Self::Hbone => Box::pin(inbound::serve(scope, captured)).await,
        }
    }
}
