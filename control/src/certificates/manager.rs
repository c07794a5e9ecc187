//! Who asks for a certificate, and who is waiting for which.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, SystemTime};

use mesh::Identity;
use tokio::runtime::Handle;
use tokio::sync::{Semaphore, watch};
use tokio::task::AbortHandle;

use super::renewal::keep;
use super::{Authority, CertificateError, State, WorkloadCertificate};

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
}

impl Default for Config {
    fn default() -> Self {
        Self {
            ttl: Duration::from_secs(24 * 3600),
            wait: Duration::from_secs(10),
            fetch_timeout: Duration::from_secs(20),
            fetches: 8,
        }
    }
}

/// Keeps the certificates of a node's workloads. Cheap to clone; the last clone ends all renewals.
#[derive(Clone)]
pub struct Manager {
    shared: Arc<Shared>,
    entries: Arc<Entries>,
    runtime: Handle,
}

/// What the tasks of all identities share.
pub(super) struct Shared {
    pub(super) authority: Arc<dyn Authority>,
    pub(super) config: Config,
    pub(super) fetches: Semaphore,
}

#[derive(Default)]
struct Entries(Mutex<HashMap<Identity, Entry>>);

struct Entry {
    state: watch::Receiver<State>,
    task: AbortHandle,
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
}

impl Manager {
    /// A manager of no certificates yet. Fetches and renewals run on the runtime that this is called in;
    /// [`Self::get`] may be called from any.
    pub fn new(authority: Arc<dyn Authority>, config: Config) -> Self {
        let fetches = Semaphore::new(config.fetches.max(1));
        Self {
            shared: Arc::new(Shared { authority, config, fetches }),
            entries: Arc::default(),
            runtime: Handle::current(),
        }
    }

    /// The certificate of an identity, which is fetched if there is none yet. From then on it is renewed until
    /// it is forgotten.
    ///
    /// # Errors
    /// The last [`CertificateError`], if there is no valid certificate after [`Config::wait`].
    pub async fn get(&self, identity: &Identity) -> Result<Arc<WorkloadCertificate>, CertificateError> {
        let mut state = self.enter(identity);
        let valid = |state: &State| match state {
            State::Available(certificate) if !certificate.is_expired(SystemTime::now()) => {
                Some(Arc::clone(certificate))
            }
            _ => None,
        };
        if let Some(certificate) = valid(&state.borrow()) {
            return Ok(certificate);
        }
        let wait = self.shared.config.wait;
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

    /// What is known of every identity, in their order.
    pub fn states(&self) -> Vec<(Identity, State)> {
        let entries = self.entries.lock();
        let mut states: Vec<_> = entries
            .iter()
            .map(|(identity, entry)| (identity.clone(), entry.state.borrow().clone()))
            .collect();
        drop(entries);
        states.sort_by(|(one, _), (other, _)| one.cmp(other));
        states
    }

    fn enter(&self, identity: &Identity) -> watch::Receiver<State> {
        let mut entries = self.entries.lock();
        if let Some(entry) = entries.get(identity) {
            return entry.state.clone();
        }
        let (sender, state) = watch::channel(State::Pending);
        let task = self.runtime.spawn(keep(Arc::clone(&self.shared), identity.clone(), sender));
        let entry = Entry { state: state.clone(), task: task.abort_handle() };
        entries.insert(identity.clone(), entry);
        state
    }
}

impl fmt::Debug for Manager {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Manager").field("identities", &self.entries.lock().len()).finish_non_exhaustive()
    }
}
