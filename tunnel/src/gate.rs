//! Which of a pod's connections are taken on at all.
//!
//! Two things are refused here, with RST, whatever mesh and policy would say. What comes beyond the number of connections
//! a pod may have: each costs the agent up to two descriptors, and one pod must not spend those of all. And what would
//! make the agent talk to itself: a local process may well connect to the agent's listeners, and to pass that on to where
//! it seems to be going would be to dial the same listener again, without end.
//!
//! Invariant: a refusal costs one look-up and no task, and the log gets a line a second of it at most; all are counted.

use std::collections::HashSet;
use std::fmt;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use nix::sys::resource::{Resource, getrlimit};
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use crate::config::Config;
use crate::pod::{Listeners, Pod};
use crate::scope::canonical;
use crate::telemetry::Metrics;

/// The part of the agent's descriptors that the connections of one pod may count.
const DESCRIPTOR_SHARE: u64 = 4;
/// How often the log tells of refusals.
const PERIOD: Duration = Duration::from_secs(1);

/// One connection's place among those of its pod; given back when dropped.
pub(crate) type Place = OwnedSemaphorePermit;

/// Why a connection is not taken on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Unwelcome {
    /// The pod has as many as it may have.
    Full,
    /// The pod has as many tunnels as it may have.
    Tunnels,
    /// It goes to a listener of ours, or to loopback, which is never captured.
    Listener,
    /// Its other end is a socket that we dialled ourselves.
    Ourselves,
}

impl fmt::Display for Unwelcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Full => "the pod has as many connections as one pod may have",
            Self::Tunnels => "the pod has as many tunnels as one pod may have",
            Self::Listener => "it was made to the agent's own listener",
            Self::Ourselves => "it was made by the agent itself",
        })
    }
}

impl EncodeLabelValue for Unwelcome {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        let label = match self {
            Self::Full => "full",
            Self::Tunnels => "tunnels",
            Self::Listener => "listener",
            Self::Ourselves => "ourselves",
        };
        label.encode(encoder)
    }
}

/// The label of the counter.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Reason {
    reason: Unwelcome,
}

/// The gate of one pod.
pub(crate) struct Gate {
    pod: String,
    places: Arc<Semaphore>,
    tunnels: Arc<Semaphore>,
    listeners: Vec<SocketAddr>,
    /// Both ends of every socket we have dialled for the pod, ours first. No more than there are places, and tunnels.
    dialled: Mutex<HashSet<(SocketAddr, SocketAddr)>>,
    metrics: Metrics,
    told: Mutex<Told>,
}

/// What the log knows.
struct Told {
    next: Instant,
    /// Refusals since the last line.
    unsaid: u64,
}

impl Gate {
    pub(crate) fn new(pod: &Pod, listeners: &Listeners, config: &Config, metrics: &Metrics) -> Self {
        let places = config.max_connections_per_pod;
        // A tunnel takes a place, and so does each stream on it.
        let tunnels = config.max_tunnels_per_pod.min(places / 2).max(1);
        let all = listeners.outbound.iter().chain(&listeners.plaintext).chain(&listeners.hbone);
        let addresses = all.filter_map(|listener| listener.local_addr().ok()).map(canonical);
        Self {
            pod: format!("{pod:?}"),
            places: Arc::new(Semaphore::new(places)),
            tunnels: Arc::new(Semaphore::new(tunnels)),
            listeners: addresses.collect(),
            dialled: Mutex::default(),
            metrics: metrics.clone(),
            told: Mutex::new(Told { next: Instant::now(), unsaid: 0 }),
        }
    }

    /// A place for one more connection, if there is one.
    pub(crate) fn place(&self, source: SocketAddr) -> Option<Place> {
        self.take(&self.places, source, Unwelcome::Full)
    }

    /// A place for one more tunnel among those that arrive, if there is one.
    pub(crate) fn tunnel(&self, source: SocketAddr) -> Option<Place> {
        self.take(&self.tunnels, source, Unwelcome::Tunnels)
    }

    fn take(&self, from: &Arc<Semaphore>, source: SocketAddr, without: Unwelcome) -> Option<Place> {
        let place = Arc::clone(from).try_acquire_owned().ok();
        if place.is_none() {
            self.tell(without, source);
        }
        place
    }

    /// Whether a connection may go on to `destination`, which is neither ours nor comes from us.
    pub(crate) fn admits(&self, source: SocketAddr, destination: SocketAddr) -> bool {
        let unwelcome = if destination.ip().is_loopback() || self.listeners.contains(&destination) {
            Unwelcome::Listener
        } else if self.dialled().contains(&(source, destination)) {
            Unwelcome::Ourselves
        } else {
            return true;
        };
        self.tell(unwelcome, source);
        false
    }

    /// Notes a socket that we dial, until the link is dropped.
    pub(crate) fn dialled_from(self: &Arc<Self>, own: SocketAddr, destination: SocketAddr) -> Link {
        let ends = (own, destination);
        self.dialled().insert(ends);
        Link { gate: Arc::clone(self), ends }
    }

    fn tell(&self, why: Unwelcome, source: SocketAddr) {
        self.metrics.refused.get_or_create(&Reason { reason: why }).inc();
        let mut told = self.told.lock().unwrap_or_else(PoisonError::into_inner);
        if told.next > Instant::now() {
            told.unsaid += 1;
            return;
        }
        let unsaid = std::mem::take(&mut told.unsaid);
        told.next = Instant::now() + PERIOD;
        drop(told);
        tracing::warn!(pod = self.pod, %source, reason = why.to_string(), unsaid, "connection refused");
    }

    fn dialled(&self) -> MutexGuard<'_, HashSet<(SocketAddr, SocketAddr)>> {
        self.dialled.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A socket that we have dialled, for as long as it lives.
pub(crate) struct Link {
    gate: Arc<Gate>,
    ends: (SocketAddr, SocketAddr),
}

impl Drop for Link {
    fn drop(&mut self) {
        self.gate.dialled().remove(&self.ends);
    }
}

/// How many connections a pod may have: as many as are `wanted`, but no more than its share of the agent's descriptors.
pub(crate) fn connections_per_pod(wanted: usize) -> usize {
    let Ok((descriptors, _)) = getrlimit(Resource::RLIMIT_NOFILE) else { return wanted };
    let share = usize::try_from(descriptors / DESCRIPTOR_SHARE).unwrap_or(usize::MAX).max(1);
    if share < wanted {
        tracing::warn!(
            descriptors,
            needed = u64::try_from(wanted).unwrap_or(u64::MAX).saturating_mul(DESCRIPTOR_SHARE),
            connections_per_pod = share,
            wanted,
            "a pod may have a part of the open files alone, which are too few for the connections wanted; raise the limit of open files \
             (LimitNOFILE=) to what is needed, or lower --max-connections-per-pod"
        );
    }
    share.min(wanted)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_gets_no_more_than_its_share_of_the_descriptors() {
        let (descriptors, _) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
        assert_eq!(connections_per_pod(usize::MAX) as u64, descriptors / 4);
        assert_eq!(connections_per_pod(3), 3);
    }
}
