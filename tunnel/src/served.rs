//! A pod while it is served: what its connections on all workers share, and what ends when the last of them has.
//!
//! Invariant: two starts are never taken for one, be it the same name at the same address: each has a number of its own.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::{Semaphore, watch};

use crate::config::Config;
use crate::crowds::Crowds;
use crate::dns::{self, Names, PodSettings};
use crate::gate::Gate;
use crate::identities::{Identities, User};
use crate::pod::{Listeners, Pod};
use crate::policy_list::PolicyList;
use crate::same_node::{Offers, Pauses};
use crate::telemetry::Metrics;

/// The share of the node's handshakes that one pod may have under way, so that who floods one pod leaves the others be.
const HANDSHAKE_SHARE: usize = 4;

static STARTS: AtomicU64 = AtomicU64::new(0);

/// A pod and what its connections share.
pub(crate) struct Served {
    pub(crate) pod: Pod,
    /// Of this start.
    pub(crate) number: u64,
    /// Changes once, when the pod's handle is dropped.
    pub(crate) serving: watch::Receiver<()>,
    pub(crate) gate: Arc<Gate>,
    /// Whose tunnels bring crowds.
    pub(crate) crowds: Crowds,
    pub(crate) policies: PolicyList,
    /// TLS handshakes of its clients that may be under way.
    pub(crate) handshakes: Semaphore,
    /// The certificates it uses.
    pub(crate) user: User,
    /// Direct connections that are on their way to it.
    pub(crate) offers: Arc<Offers>,
    /// Pods that it does not try to reach directly now.
    pub(crate) pauses: Pauses,
    /// Whether it has listeners for tunnels.
    has_tunnels: bool,
    /// Whether its DNS queries come to us.
    pub(crate) dns: bool,
    /// DNS queries of its applications that may be under way.
    pub(crate) dns_places: Arc<Semaphore>,
    /// How its applications resolve names.
    pub(crate) settings: PodSettings,
    /// What names that connections go to were resolved to.
    pub(crate) names: Names,
}

impl Served {
    pub(crate) fn new(
        pod: Pod,
        listeners: &Listeners,
        serving: watch::Receiver<()>,
        config: &Config,
        metrics: &Metrics,
        identities: &Arc<Identities>,
    ) -> Self {
        Self {
            number: STARTS.fetch_add(1, Ordering::Relaxed),
            gate: Arc::new(Gate::new(&pod, listeners, config, metrics)),
            crowds: Crowds::default(),
            policies: PolicyList::new(config.timeouts.unknown_policy),
            handshakes: Semaphore::new((config.max_handshakes / HANDSHAKE_SHARE).max(1)),
            user: User::new(Arc::clone(identities)),
            offers: Arc::default(),
            pauses: Pauses::default(),
            has_tunnels: !listeners.hbone.is_empty(),
            dns: !listeners.dns.is_empty(),
            dns_places: Arc::new(Semaphore::new(dns::MAX_PENDING)),
            settings: PodSettings::new(&pod.namespace, &config.dns.cluster_domain),
            names: Names::default(),
            pod,
            serving,
        }
    }

    /// Whether tunnels to it are accepted, here and still.
    pub(crate) fn takes_tunnels(&self) -> bool {
        // The sender never sends: an error says that the pod's handle is gone.
        self.has_tunnels && self.serving.has_changed().is_ok()
    }
}
