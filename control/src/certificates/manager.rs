//! Who asks for a certificate, and who is waiting for which.
//!
//! Invariant: an identity has one task that keeps its certificate, which ends when the identity is forgotten or the last
//! handle of the manager goes.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use mesh::Identity;
use prometheus_client::registry::Registry;
use tokio::runtime::Handle;
use tokio::sync::watch;
use tokio::task::AbortHandle;
use tracing::info;

use super::metrics::{Held, Metrics};
use super::renewal::Keeper;
use super::trust::Trust;
use super::turns::Turns;
use super::{Authority, CertificateError, State, WorkloadCertificate};
use crate::clock::Clock;

/// How a [`Manager`] goes about it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Config {
    /// The lifetime to ask for.
    pub ttl: Duration,
    /// How long a caller of [`Manager::get`] waits for a certificate.
    pub wait: Duration,
    /// How long one answer of the authority may take.
    pub fetch_timeout: Duration,
    /// How many requests may be under way at once.
    pub fetches: usize,
    /// How long a root that the authority's newest answer lacks is still trusted.
    pub root_grace: Duration,
    /// Over how long renewals are spread when all certificates are to be renewed at once.
    pub spread: Duration,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(24 * 3600),
            wait: Duration::from_secs(10),
            fetch_timeout: Duration::from_secs(20),
            fetches: 8,
            root_grace: Duration::from_secs(600),
            spread: Duration::from_secs(10),
        }
    }
}

/// Keeps the certificates of a node's workloads. Cheap to clone; the last clone ends all renewals.
#[derive(Clone)]
pub struct Manager {
    shared: Arc<Shared>,
    entries: Arc<Entries>,
    runtime: Handle,
    _follower: Arc<Follower>,
}

/// Renews all certificates when the authority's own trust has changed.
struct Follower(AbortHandle);

impl Drop for Follower {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// What the tasks of all identities share.
pub(super) struct Shared {
    pub(super) authority: Arc<dyn Authority>,
    pub(super) config: Config,
    pub(super) clock: Clock,
    pub(super) turns: Arc<Turns>,
    pub(super) trust: Arc<Trust>,
    pub(super) metrics: Metrics,
    /// Counts how often all certificates were to be renewed.
    renew: watch::Sender<u64>,
}

#[derive(Default)]
pub(super) struct Entries(Mutex<HashMap<Identity, Entry>>);

struct Entry {
    state: watch::Receiver<State>,
    /// How many wait for it.
    waiters: Arc<watch::Sender<usize>>,
    due: watch::Receiver<Option<SystemTime>>,
    task: AbortHandle,
}

/// One who waits for a certificate.
struct Waiter(Arc<watch::Sender<usize>>);

impl Waiter {
    fn new(waiters: &Arc<watch::Sender<usize>>) -> Self {
        waiters.send_modify(|count| *count += 1);
        Self(Arc::clone(waiters))
    }
}

impl Drop for Waiter {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count = count.saturating_sub(1));
    }
}

impl Drop for Entry {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Entries {
    fn lock(&self) -> MutexGuard<'_, HashMap<Identity, Entry>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of every identity, and when its next fetch is due.
    pub(super) fn view(&self) -> Vec<(Identity, State, Option<SystemTime>)> {
        let view = |(identity, entry): (&Identity, &Entry)| {
            (identity.clone(), entry.state.borrow().clone(), *entry.due.borrow())
        };
        self.lock().iter().map(view).collect()
    }
}

impl Manager {
    /// A manager of no certificates yet. Fetches and renewals run on the runtime that this is called in;
    /// [`Self::get`] may be called from any.
    pub fn new(authority: Arc<dyn Authority>, config: Config) -> Self {
        Self::by(authority, config, Clock::default())
    }

    /// The same by a clock.
    pub(super) fn by(authority: Arc<dyn Authority>, config: Config, clock: Clock) -> Self {
        let shared = Arc::new(Shared {
            authority,
            config,
            clock,
            turns: Turns::new(config.fetches),
            trust: Trust::new(config.root_grace),
            metrics: Metrics::default(),
            renew: watch::Sender::default(),
        });
        let runtime = Handle::current();
        let follower = runtime.spawn(follow(Arc::clone(&shared)));
        Self {
            shared,
            entries: Arc::default(),
            runtime,
            _follower: Arc::new(Follower(follower.abort_handle())),
        }
    }

    /// Registers the metrics of certificates.
    pub fn register(&self, registry: &mut Registry) {
        self.shared.metrics.register(registry);
        registry.register_collector(Box::new(Held(Arc::downgrade(&self.entries), self.shared.clock.clone())));
    }

    /// The certificate of an identity, which is fetched if there is none yet. From then on it is renewed until
    /// it is forgotten.
    ///
    /// # Errors
    /// The last [`CertificateError`], if there is no valid certificate after [`Config::wait`].
    pub async fn get(&self, identity: &Identity) -> Result<Arc<WorkloadCertificate>, CertificateError> {
        let (mut state, waiters) = self.enter(identity);
        let valid = |state: &State| match state {
            State::Available(certificate) if !certificate.is_expired(self.shared.clock.now()) => {
                Some(Arc::clone(certificate))
            }
            _ => None,
        };
        if let Some(certificate) = valid(&state.borrow()) {
            return Ok(certificate);
        }
        let wait = self.shared.config.wait;
        let _waiter = Waiter::new(&waiters);
        let waiting = state.wait_for(|state| valid(state).is_some());
        let outcome = tokio::time::timeout(wait, waiting).await.map(|now| now.map(|now| valid(&now)));
        match outcome {
            Ok(Ok(Some(certificate))) => return Ok(certificate),
            Ok(Err(_)) => return Err(CertificateError::Forgotten { identity: identity.clone() }),
            Ok(Ok(None)) | Err(_) => {}
        }
        match &*state.borrow() {
            State::Unavailable(error) => Err(error.clone()),
            State::Pending | State::Available(_) => {
                Err(CertificateError::TimedOut { identity: identity.clone(), waited: wait })
            }
        }
    }

    /// Begins to fetch a certificate that will be asked for.
    pub fn warm(&self, identity: &Identity) {
        drop(self.enter(identity));
    }

    /// Forgets an identity, and its certificate with it. Callers who wait are told.
    pub fn forget(&self, identity: &Identity) {
        self.entries.lock().remove(identity);
    }

    /// Renews all certificates, spread over [`Config::spread`].
    pub fn renew_all(&self) {
        self.shared.renew.send_modify(|count| *count += 1);
    }

    /// What is known of every identity, in their order.
    pub fn states(&self) -> Vec<(Identity, State)> {
        let view = self.entries.view();
        let mut states: Vec<_> = view.into_iter().map(|(identity, state, _)| (identity, state)).collect();
        states.sort_by(|(one, _), (other, _)| one.cmp(other));
        states
    }

    /// How many certificates are due to be renewed and are not yet.
    pub fn overdue(&self) -> usize {
        let now = self.shared.clock.now();
        self.entries.view().iter().filter(|(_, _, due)| due.is_some_and(|due| due < now)).count()
    }

    fn enter(&self, identity: &Identity) -> (watch::Receiver<State>, Arc<watch::Sender<usize>>) {
        let mut entries = self.entries.lock();
        let entry = entries.entry(identity.clone()).or_insert_with(|| self.keep(identity));
        (entry.state.clone(), Arc::clone(&entry.waiters))
    }

    /// Begins to keep the certificate of an identity.
    fn keep(&self, identity: &Identity) -> Entry {
        let (state_sender, state) = watch::channel(State::Pending);
        let (due_sender, due) = watch::channel(None);
        let (waiters, waiting) = watch::channel(0);
        let keeper = Keeper {
            shared: Arc::clone(&self.shared),
            identity: identity.clone(),
            state: state_sender,
            waiters: waiting,
            trust: self.shared.trust.subscribe(),
            renew: self.shared.renew.subscribe(),
            due: due_sender,
        };
        let task = self.runtime.spawn(keeper.run());
        Entry { state, waiters: Arc::new(waiters), due, task: task.abort_handle() }
    }
}

async fn follow(shared: Arc<Shared>) {
    loop {
        shared.authority.changed().await;
        info!("what the certificate authority is trusted by has changed; all certificates are renewed");
        shared.renew.send_modify(|count| *count += 1);
    }
}

impl fmt::Debug for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Manager").field("identities", &self.entries.lock().len()).finish_non_exhaustive()
    }
}
