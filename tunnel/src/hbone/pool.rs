//! The tunnels of one worker, shared by the connections that may share them.
//!
//! Invariants: one dial for a peer at a time, whose outcome everyone who waits for it gets; a tunnel never
//! carries more streams than we or the peer allow; what is dead, or told to go away, is handed out to nobody.
//! Each tunnel is driven by a task of its own, which also closes it after it was unused for a while.

mod carrier;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use tokio::time::timeout;

use self::carrier::Carrier;
pub(crate) use self::carrier::Lease;
use super::baggage::Baggage;
use super::client::{ConnectHead, Connection, Connector, PeerKey};
use super::{ConnectError, HboneStream};
use crate::config::PoolConfig;
use crate::pod::PodSockets;

/// A worker's pool. Cloning shares it.
#[derive(Clone)]
pub(crate) struct Pool {
    inner: Arc<Inner>,
}

struct Inner {
    connector: Connector,
    config: PoolConfig,
    peers: Mutex<HashMap<PeerKey, Peer>>,
}

#[derive(Default)]
struct Peer {
    carriers: Vec<Arc<Carrier>>,
    dialling: Option<Shared<BoxFuture<'static, Result<(), ConnectError>>>>,
}

impl Pool {
    pub(crate) fn new(connector: Connector, config: PoolConfig) -> Self {
        Self { inner: Arc::new(Inner { connector, config, peers: Mutex::default() }) }
    }

    /// Opens a stream to the peer of `key`, on a tunnel that is there or a new one.
    ///
    /// If a tunnel that has worked before turns out to be gone, another is tried, once: the application has
    /// sent nothing yet.
    pub(crate) async fn open(
        &self,
        key: &PeerKey,
        sockets: &Arc<dyn PodSockets>,
        head: &ConnectHead,
    ) -> Result<(HboneStream, Baggage), ConnectError> {
        let request = head.request()?;
        let limit = self.inner.connector.timeouts.answer;
        let mut may_retry = true;
        loop {
            let lease = self.lease(key, sockets).await?;
            let worked_before = lease.carrier().has_worked();
            let carrier = Arc::clone(lease.carrier());
            match timeout(limit, lease.open(request.clone())).await {
                Ok(Err(_)) if may_retry && worked_before && carrier.is_closed() => may_retry = false,
                Ok(outcome) => return outcome,
                Err(_) => return Err(ConnectError::NoAnswer(limit)),
            }
        }
    }

    /// The number of tunnels that are there.
    #[cfg(test)]
    pub(crate) fn tunnels(&self) -> usize {
        self.inner.peers().values().map(|peer| peer.carriers.len()).sum()
    }

    async fn lease(&self, key: &PeerKey, sockets: &Arc<dyn PodSockets>) -> Result<Lease, ConnectError> {
        loop {
            let dialling = {
                let mut peers = self.inner.peers();
                let peer = peers.entry(key.clone()).or_default();
                let limit = self.inner.config.max_streams;
                if let Some(lease) = peer.carriers.iter().find_map(|carrier| Lease::take(carrier, limit)) {
                    return Ok(lease);
                }
                peer.dialling
                    .get_or_insert_with(|| dial(Arc::clone(&self.inner), key.clone(), Arc::clone(sockets)))
                    .clone()
            };
            dialling.await?;
        }
    }
}

/// Dials in a task of its own, so that nobody who gives up waiting takes the others' connection along.
fn dial(
    inner: Arc<Inner>,
    key: PeerKey,
    sockets: Arc<dyn PodSockets>,
) -> Shared<BoxFuture<'static, Result<(), ConnectError>>> {
    let task = tokio::spawn(async move {
        let outcome = inner.connector.dial(&key, sockets.as_ref()).await;
        let mut peers = inner.peers();
        let peer = peers.entry(key.clone()).or_default();
        peer.dialling = None;
        match outcome {
            Ok((sender, connection)) => {
                let carrier = Arc::new(Carrier::new(sender));
                peer.carriers.push(Arc::clone(&carrier));
                tokio::spawn(drive(Arc::clone(&inner), key, carrier, connection));
                Ok(())
            }
            Err(error) => {
                inner.forget(&mut peers, &key, None);
                Err(error)
            }
        }
    });
    async move { task.await.unwrap_or_else(|error| Err(ConnectError::Http2(error.to_string().into()))) }
        .boxed()
        .shared()
}

/// Drives a tunnel to its end and takes it out of the pool.
async fn drive(inner: Arc<Inner>, key: PeerKey, carrier: Arc<Carrier>, connection: Connection) {
    let http2 = &inner.connector.http2;
    let release = || {
        let mut peers = inner.peers();
        let idle = carrier.close_if_idle(inner.config.idle_release);
        if idle {
            inner.forget(&mut peers, &key, Some(&carrier));
        }
        idle
    };
    let end = carrier.run(connection, http2, inner.config.idle_release, release).await;
    tracing::debug!(peer = %key.next_hop, reason = %end, "tunnel closed");
    carrier.close(end);
    inner.forget(&mut inner.peers(), &key, Some(&carrier));
}

impl Inner {
    fn peers(&self) -> MutexGuard<'_, HashMap<PeerKey, Peer>> {
        self.peers.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes out a tunnel, and the peer once nothing is left of it.
    fn forget(&self, peers: &mut HashMap<PeerKey, Peer>, key: &PeerKey, gone: Option<&Arc<Carrier>>) {
        if let Some(peer) = peers.get_mut(key) {
            peer.carriers.retain(|carrier| gone.is_none_or(|gone| !Arc::ptr_eq(carrier, gone)));
            if peer.carriers.is_empty() && peer.dialling.is_none() {
                peers.remove(key);
            }
        }
    }
}
