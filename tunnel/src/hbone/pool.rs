//! The tunnels of one worker, shared by the connections that may share them.
//!
//! Invariants: one dial for a peer at a time, whose outcome everyone who waits for it gets; a tunnel never
//! carries more streams than we or the peer allow; what is dead, or told to go away, is handed out to nobody.
//! A tunnel that is crowded, or on which somebody waits for room, gets company, up to a few a peer, so that neither a
//! busy pair of pods nor one stream that is stuck depends on one connection alone.
//! Each tunnel is driven by a task of its own, which also closes it after it was unused for a while, soon if there is another one to
//! the peer, or as soon as it is unused once its pod is no longer served.

mod carrier;

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use tokio::sync::watch;
use tokio::time::{Instant, timeout};

pub(crate) use self::carrier::Lease;
use self::carrier::{Carrier, Elsewhere, Idling, Unopened};
use super::baggage::Baggage;
use super::client::{ConnectHead, Connection, Connector, PeerKey, SetUp};
use super::signs::Signs;
use super::strain::Strain;
use super::{ConnectError, HboneStream};
use crate::config::PoolConfig;
use crate::gate::Link;
use crate::served::Served;

/// How long no more tunnels are dialled for company's sake after that has failed.
const LONELY: Duration = Duration::from_secs(5);
/// How many tunnels that turn out to have no room a stream is taken to another from.
const WITHOUT_ROOM: usize = 3;

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

/// The tunnels to one peer.
#[derive(Default)]
struct Peer {
    carriers: Vec<Arc<Carrier>>,
    dialling: Option<Dialling>,
    /// How many streams on one tunnel the peer allowed when it was last heard of.
    streams_allowed: Option<usize>,
    /// Not before may another tunnel be dialled for company's sake: the last attempt failed.
    company_after: Option<Instant>,
}

type Dialling = Shared<BoxFuture<'static, Result<(), ConnectError>>>;

impl Pool {
    pub(crate) fn new(connector: Connector, config: PoolConfig) -> Self {
        Self { inner: Arc::new(Inner { connector, config, peers: Mutex::default() }) }
    }

    /// Opens a stream to the peer of `key`, on a tunnel that is there or a new one.
    ///
    /// If the peer has not touched the stream, or a tunnel that has worked before turns out to be gone, another tunnel is
    /// tried, once: the application has sent nothing yet. That a tunnel had less room than was thought does not count, a
    /// few times over.
    pub(crate) async fn open(
        &self,
        key: &PeerKey,
        served: &Arc<Served>,
        head: &ConnectHead,
    ) -> Result<(HboneStream, Baggage), ConnectError> {
        let request = head.request()?;
        let limit = self.inner.connector.timeouts.answer;
        let mut left = None;
        let mut again = false;
        let mut without_room = 0;
        loop {
            let (lease, place) = self.lease(key, served, left.as_ref()).await?;
            let worked_before = lease.carrier().has_worked();
            let carrier = Arc::clone(lease.carrier());
            let outcome = timeout(limit, lease.open(place, request.clone()));
            match outcome.await.map_err(|_| ConnectError::NoAnswer(limit))? {
                Err(Unopened { elsewhere: Elsewhere::NoRoom, .. }) if without_room < WITHOUT_ROOM => {
                    without_room += 1;
                    left = Some(carrier);
                }
                Err(unopened)
                    if !again
                        && (unopened.elsewhere != Elsewhere::No || worked_before && carrier.is_closed()) =>
                {
                    again = true;
                    left = Some(carrier);
                }
                outcome => return outcome.map_err(|unopened| unopened.error),
            }
        }
    }

    /// Opens a tunnel of its own inside a stream to the gateway of `key`, to a peer that shows one of the names
    /// `accepted`, and asks it for what `head` says. The gateway is asked for the same, but not told our network.
    pub(crate) async fn open_across(
        &self,
        key: &PeerKey,
        accepted: &Arc<[String]>,
        served: &Arc<Served>,
        head: &ConnectHead,
    ) -> Result<(HboneStream, Baggage), ConnectError> {
        let client = served.user.client(&key.source, accepted).await?;
        let (outer, _) = self.open(key, served, &ConnectHead { network: None, ..head.clone() }).await?;
        self.inner.connector.open_inside(outer, &client, key.next_hop, head).await
    }

    /// The number of tunnels that are there.
    #[cfg(test)]
    pub(crate) fn tunnels(&self) -> usize {
        self.inner.peers().values().map(|peer| peer.carriers.len()).sum()
    }

    /// A place on a tunnel, and which; but not on the one that was `left`.
    async fn lease(
        &self,
        key: &PeerKey,
        served: &Arc<Served>,
        left: Option<&Arc<Carrier>>,
    ) -> Result<(Lease, usize), ConnectError> {
        loop {
            let dialling = {
                let mut peers = self.inner.peers();
                let peer = peers.entry(key.clone()).or_default();
                let lease = peer.place(&self.inner.config, left);
                if lease.is_none() || peer.wants_company(&self.inner.config) {
                    let dial = || dial(Arc::clone(&self.inner), key.clone(), Arc::clone(served));
                    peer.dialling.get_or_insert_with(dial);
                }
                match (lease, &peer.dialling) {
                    (Some(lease), _) => return Ok(lease),
                    (None, Some(dialling)) => dialling.clone(),
                    (None, None) => continue,
                }
            };
            dialling.await?;
        }
    }
}

impl Peer {
    /// A place on the first tunnel that is at ease, else on the one with the fewest streams.
    fn place(&mut self, config: &PoolConfig, left: Option<&Arc<Carrier>>) -> Option<(Lease, usize)> {
        let heard = self.carriers.iter().filter(|carrier| carrier.is_heard());
        let allowed = heard.filter_map(|carrier| {
            let streams = carrier.allowed();
            (!carrier.is_closed()).then_some(streams.max(1))
        });
        self.streams_allowed = allowed.min().or(self.streams_allowed);
        // What a new tunnel's peer allows is not known before its first word.
        let new = self.streams_allowed.map_or(config.max_streams, |allowed| allowed.min(config.max_streams));
        let most = |carrier: &Carrier| if carrier.is_heard() { config.max_streams } else { new };
        let usable = || self.carriers.iter().filter(|one| left.is_none_or(|left| !Arc::ptr_eq(one, left)));
        let at_ease = usable().filter(|carrier| carrier.is_at_ease(config.crowded));
        let mut others: Vec<_> = usable().collect();
        others.sort_by_key(|carrier| carrier.streams());
        at_ease.chain(others).find_map(|carrier| Lease::take(carrier, most(carrier)))
    }

    /// Whether there is a tunnel beside this one.
    fn has_another(&self, than: &Arc<Carrier>) -> bool {
        self.carriers.iter().any(|carrier| !Arc::ptr_eq(carrier, than) && !carrier.is_closed())
    }

    /// Whether all tunnels are uneasy, and there may be one more.
    fn wants_company(&self, config: &PoolConfig) -> bool {
        let open = || self.carriers.iter().filter(|carrier| !carrier.is_closed());
        open().count() < config.connections
            && !open().any(|carrier| carrier.is_at_ease(config.crowded))
            && self.company_after.is_none_or(|after| after <= Instant::now())
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
            Ok((SetUp { sender, connection, signs, session }, link)) => {
                let strain = Strain::new(&inner.connector.http2);
                let carrier = Arc::new(Carrier::new(sender, strain, session));
                peer.carriers.push(Arc::clone(&carrier));
                let way = Way { key, _link: link, serving: served.serving.clone() };
                tokio::spawn(drive(Arc::clone(&inner), way, carrier, (connection, signs)));
                Ok(())
            }
            Err(error) => {
                peer.company_after = Some(Instant::now() + LONELY);
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
async fn drive(inner: Arc<Inner>, way: Way, carrier: Arc<Carrier>, connection: (Connection, Signs)) {
    let Way { key, _link, serving } = way;
    let http2 = &inner.connector.http2;
    let spare = inner.config.spare_release;
    let release = |limit: Duration| {
        let mut peers = inner.peers();
        let is_spare = peers.get(&key).is_some_and(|peer| peer.has_another(&carrier));
        let idle = carrier.close_if_idle(if is_spare { limit.min(spare) } else { limit });
        if idle {
            inner.forget(&mut peers, &key, Some(&carrier));
        }
        idle
    };
    let idling = Idling { limit: inner.config.idle_release, spare, serving, release };
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
