//! The tunnels of one worker, shared by the connections that may share them.
//!
//! Invariants: one dial for a peer at a time, whose outcome everyone who waits for it gets; a tunnel never
//! carries more streams than we or the peer allow, and only one before the peer has said what it allows; what is dead, or
//! told to go away, is handed out to nobody.
//! Each tunnel is driven by a task of its own, which also closes it after it was unused for a while, or as soon as it is
//! unused once its pod is no longer served.

mod carrier;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use tokio::sync::watch;
use tokio::time::timeout;

pub(crate) use self::carrier::Lease;
use self::carrier::{Carrier, Idling};
use super::baggage::Baggage;
use super::client::{ConnectHead, Connection, Connector, PeerKey};
use super::{ConnectError, HboneStream};
use crate::config::PoolConfig;
use crate::gate::Link;
use crate::served::Served;

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
    dialling: Option<Dialling>,
}

type Dialling = Shared<BoxFuture<'static, Result<(), ConnectError>>>;

impl Pool {
    pub(crate) fn new(connector: Connector, config: PoolConfig) -> Self {
        Self { inner: Arc::new(Inner { connector, config, peers: Mutex::default() }) }
    }

    /// Opens a stream to the peer of `key`, on a tunnel that is there or a new one.
    ///
    /// If a tunnel that has worked before turns out to be gone, or the peer says that it has not looked at the request, it
    /// is tried again, once: the application has sent nothing yet.
    pub(crate) async fn open(
        &self,
        key: &PeerKey,
        served: &Arc<Served>,
        head: &ConnectHead,
    ) -> Result<(HboneStream, Baggage), ConnectError> {
        let request = head.request()?;
        let limit = self.inner.connector.timeouts.answer;
        let mut may_retry = true;
        loop {
            let lease = self.lease(key, served).await?;
            let worked_before = lease.carrier().has_worked();
            let carrier = Arc::clone(lease.carrier());
            match timeout(limit, lease.open(request.clone())).await {
                Ok(Err(ConnectError::Unprocessed(_))) if may_retry => may_retry = false,
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

    async fn lease(&self, key: &PeerKey, served: &Arc<Served>) -> Result<Lease, ConnectError> {
        loop {
            let wait = {
                let mut peers = self.inner.peers();
                let peer = peers.entry(key.clone()).or_default();
                let limit = self.inner.config.max_streams;
                if let Some(lease) = peer.carriers.iter().find_map(|carrier| Lease::take(carrier, limit)) {
                    return Ok(lease);
                }
                match peer.carriers.iter().find_map(|carrier| carrier.unsettled()) {
                    Some(settled) => Wait::Settled(settled),
                    None => Wait::Dialled(
                        peer.dialling
                            .get_or_insert_with(|| {
                                dial(Arc::clone(&self.inner), key.clone(), Arc::clone(served))
                            })
                            .clone(),
                    ),
                }
            };
            wait.over(self.inner.connector.timeouts.http2_handshake).await?;
        }
    }
}

/// What there is to wait for while no tunnel has a place.
enum Wait {
    /// A new tunnel's peer says how many streams it takes.
    Settled(watch::Receiver<bool>),
    /// A tunnel is dialled.
    Dialled(Dialling),
}

impl Wait {
    async fn over(self, limit: Duration) -> Result<(), ConnectError> {
        match self {
            Self::Settled(mut settled) => {
                let told = timeout(limit, settled.wait_for(|settled| *settled)).await;
                // A tunnel that has ended meanwhile is not waited for any more either.
                told.map(drop).map_err(|_| ConnectError::NoAnswer(limit))
            }
            Self::Dialled(dialling) => dialling.await,
        }
    }
}

/// Dials in a task of its own, so that nobody who gives up waiting takes the others' connection along.
fn dial(inner: Arc<Inner>, key: PeerKey, served: Arc<Served>) -> Dialling {
    let task = tokio::spawn(async move {
        let outcome = inner.connector.dial(&key, &served).await;
        let mut peers = inner.peers();
        let peer = peers.entry(key.clone()).or_default();
        peer.dialling = None;
        match outcome {
            Ok((sender, connection, link)) => {
                let carrier = Arc::new(Carrier::new(sender));
                peer.carriers.push(Arc::clone(&carrier));
                let way = Way { key, _link: link, serving: served.serving.clone() };
                tokio::spawn(drive(Arc::clone(&inner), way, carrier, connection));
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

/// Where a tunnel leads, and from where.
struct Way {
    key: PeerKey,
    _link: Link,
    serving: watch::Receiver<()>,
}

/// Drives a tunnel to its end and takes it out of the pool.
async fn drive(inner: Arc<Inner>, way: Way, carrier: Arc<Carrier>, connection: Connection) {
    let Way { key, _link, serving } = way;
    let http2 = &inner.connector.http2;
    let release = |limit| {
        let mut peers = inner.peers();
        let idle = carrier.close_if_idle(limit);
        if idle {
            inner.forget(&mut peers, &key, Some(&carrier));
        }
        idle
    };
    let idling = Idling { limit: inner.config.idle_release, serving, release };
    let end = carrier.run(connection, http2, idling).await;
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
