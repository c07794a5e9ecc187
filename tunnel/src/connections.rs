//! The table of live connections: what the admin interface lists, and what policy changes are applied to.
//!
//! Invariant: an inbound connection is in the table *before* it is judged, so that a policy published in
//! between reaches it either way.

use std::collections::HashMap;
use std::fmt;
use std::net::SocketAddr;
use std::sync::atomic::Ordering;
use std::sync::{Arc, PoisonError};

use futures_util::future::{BoxFuture, Either};
use mesh::{Connection, Identity};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::gauge::ConstGauge;
use tokio::sync::Notify;

use crate::error::ConnectionError;
use crate::judgement::Judged;
use crate::sync::{AtomicU64, Mutex, MutexGuard};
use crate::tls::Session;

/// Which way a connection goes, seen from the pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Direction {
    /// The pod is the client.
    Outbound,
    /// The pod is the server.
    Inbound,
}

/// A live connection.
#[derive(Debug, Clone)]
pub struct ConnectionInfo {
    /// The uid of the pod's workload.
    pub workload: Arc<str>,
    /// Which way it goes.
    pub direction: Direction,
    /// The client's address.
    pub source: SocketAddr,
    /// Where the client wanted to go; outbound only.
    pub original_destination: Option<SocketAddr>,
    /// Where it goes: the next hop, or the application.
    pub destination: SocketAddr,
    /// Whether it is tunnelled.
    pub hbone: bool,
    /// The client's proven identity; inbound tunnels only.
    pub identity: Option<Identity>,
}

/// All live connections of the node.
#[derive(Default)]
pub(crate) struct Connections {
    next: AtomicU64,
    live: Mutex<HashMap<u64, Arc<Live>>>,
}

struct Live {
    info: ConnectionInfo,
    /// Inbound connections are subject to policy.
    judged: Option<Judged>,
    cut: Notify,
}

impl fmt::Debug for Connections {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connections").field("live", &self.count()).finish_non_exhaustive()
    }
}

/// A connection's place in the table; it leaves when this is dropped.
pub(crate) struct Entry {
    table: Arc<Connections>,
    key: u64,
    live: Arc<Live>,
}

impl Connections {
    /// Enters a connection.
    pub(crate) fn enter(self: &Arc<Self>, info: ConnectionInfo, judged: Option<Judged>) -> Entry {
        let key = self.next.fetch_add(1, Ordering::Relaxed);
        let live = Arc::new(Live { info, judged, cut: Notify::new() });
        self.live().insert(key, Arc::clone(&live));
        Entry { table: Arc::clone(self), key, live }
    }

    /// What is there now.
    pub(crate) fn list(&self) -> Vec<ConnectionInfo> {
        self.live().values().map(|live| live.info.clone()).collect()
    }

    /// How many there are now.
    pub(crate) fn count(&self) -> usize {
        self.live().len()
    }

    /// Cuts those that are `forbidden` of all that policy applies to.
    pub(crate) fn cut_if(&self, forbidden: impl Fn(&Judged, &ConnectionInfo) -> bool) {
        let live: Vec<Arc<Live>> =
            self.live().values().filter(|live| live.judged.is_some()).cloned().collect();
        for live in live {
            if live.judged.as_ref().is_some_and(|judged| forbidden(judged, &live.info)) {
                live.cut.notify_one();
            }
        }
    }

    fn live(&self) -> MutexGuard<'_, HashMap<u64, Arc<Live>>> {
        self.live.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl ConnectionInfo {
    /// The connection as policy sees it.
    pub(crate) fn subject(&self) -> Connection<'_> {
        Connection {
            source_identity: self.identity.as_ref(),
            source_ip: self.source.ip(),
            destination: self.destination,
        }
    }
}

impl Entry {
    pub(crate) fn info(&self) -> &ConnectionInfo {
        &self.live.info
    }

    /// Completes when policy no longer allows the connection.
    pub(crate) async fn cut(&self) -> ConnectionError {
        self.live.cut.notified().await;
        ConnectionError::PolicyChange
    }
}

impl Entry {
    /// The same, or when the peer of the session has come to be revoked. Boxed where there is one: few connections have
    /// it, and all would make room.
    pub(crate) fn cut_or_revoked(
        &self,
        session: Option<Arc<Session>>,
    ) -> Either<impl Future<Output = ConnectionError>, BoxFuture<'_, ConnectionError>> {
        let Some(session) = session else { return Either::Left(self.cut()) };
        Either::Right(Box::pin(async move {
            tokio::select! {
                error = self.cut() => error,
                () = session.revoked() => ConnectionError::Revoked,
            }
        }))
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.table.live().remove(&self.key);
    }
}

/// Tells how many connections the table holds.
#[derive(Debug)]
pub(crate) struct TableSize(pub(crate) Arc<Connections>);

impl Collector for TableSize {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let size = ConstGauge::new(i64::try_from(self.0.count()).unwrap_or(i64::MAX));
        let help = "Connections in the table of live connections";
        let encoder =
            encoder.encode_descriptor("culvert_connections_live", help, None, size.metric_type())?;
        size.encode(encoder)
    }
}
