//! Which pods are captured: enrols and releases them as the CNI plugin, the mesh file, Kubernetes and the kernel say.
//!
//! Each of these may speak late, twice or not at all, so everything here is a state that is brought about, not an event
//! that is handled: enrolling an enrolled pod does nothing, releasing a released one neither. What is to be done next of a pod is said by its
//! machine ([`machine`]), and done by [`drive`]. Pods do not wait for one another.
//!
//! Invariants. A pod counts as enrolled only after a connection of its own was seen to arrive at the agent. Three things end
//! capture, and nothing else does: neither mesh file nor Kubernetes wants the pod any more, the plugin says that its sandbox goes, or its
//! network namespace is proven gone. Every error leaves a captured pod captured, if need be refused, to be tried again; only
//! a pod that was not captured before is put back as it was. An enrolled pod's capture is watched ([`watch`]) and mended
//! ([`mend`]) for as long as it lives.

mod collect;
mod decisions;
mod drive;
mod error;
mod events;
mod freeze;
mod guests;
mod leave;
mod locate;
mod machine;
mod mend;
mod metrics;
mod options;
mod other_mesh;
mod places;
mod presence;
mod reconcile;
mod record;
mod retry;
mod shown;
mod sight;
mod states;
mod turn;
mod verify;
mod watch;
mod wishes;

use std::collections::{BTreeSet, HashMap};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{Notify, OwnedMutexGuard, RwLock, Semaphore};

use control::file::Enrollment;
use mesh::Store;
use redirect::{Attachment, Guard, Listeners, NodeCapture, NodeGuard, OtherLayouts, Part};
use tunnel::{Pod, PodHandle, Tunnel};

use decisions::Counted;
pub(crate) use decisions::Decisions;
pub(crate) use drive::Location;
pub(crate) use error::EnrollError;
pub(crate) use events::follow as follow_events;
pub(crate) use machine::Mark;
pub(crate) use metrics::EnrollmentMetrics;
pub(crate) use options::{CAPTURE_ANNOTATIONS, PodDefaults};
pub(crate) use places::seen as seen_path;
pub(crate) use reconcile::{inherit, run};
pub(crate) use record::{PodKey, Record, Records};
use retry::Retries;
pub(crate) use shown::{PodState, Shown};
pub(crate) use sight::PodSight;
use states::{Scribe, States};
pub(crate) use watch::watch;
pub(crate) use wishes::{Want, Wanted, Wishes};

use crate::kubernetes::Annotator;
use crate::lookout::Lookout;
use crate::pod_sockets::Sockets;

/// Pods that are being mended, or proven again, at once.
const MAX_REPAIRS: usize = 16;
/// Pods that are being enrolled or released at once, besides those that the plugin brings: each proof has a limit, which it would miss if all
/// were made together. Those that wait until their peers know that they leave do not count.
const MAX_AT_WORK: usize = 16;

/// Enrols and releases this node's pods.
pub(crate) struct Enroller {
    node: Arc<NodeCapture>,
    node_guard: Arc<NodeGuard>,
    bpffs: PathBuf,
    tunnel: Arc<Tunnel>,
    store: Arc<Store>,
    records: Records,
    proc: PathBuf,
    metrics: EnrollmentMetrics,
    defaults: PodDefaults,
    wishes: Wishes,
    annotator: Option<Arc<Annotator>>,
    pods: Mutex<HashMap<PodKey, Slot>>,
    /// Captured, but not served: to be taken over again.
    lost: Mutex<HashMap<PodKey, Record>>,
    /// Captured and served by the agent before this one, with whose sockets they are served on.
    inherited: Mutex<HashMap<u64, Listeners>>,
    retries: Retries,
    /// Pods on which a task of the reconciliation is at work, and who is told when one ends.
    busy: Mutex<BTreeSet<PodKey>>,
    again: Notify,
    /// Who may be at work of those.
    turns: Semaphore,
    states: States,
    counted: Counted,
    repairs: Arc<Semaphore>,
    guests: Mutex<Arc<guests::Guests>>,
    lookout: Arc<Lookout>,
    /// What is known of programs of others on this node.
    others_noted: Mutex<BTreeSet<String>>,
    /// Held for reading by whoever changes something, for writing while nothing may change.
    changes: Arc<RwLock<()>>,
}

/// What an [`Enroller`] is made of.
pub(crate) struct Parts {
    /// The node's half of capture.
    pub(crate) node: Arc<NodeCapture>,
    /// The watch over it.
    pub(crate) node_guard: NodeGuard,
    /// Where it is pinned, to open it again if it is lost.
    pub(crate) bpffs: PathBuf,
    /// What serves captured connections.
    pub(crate) tunnel: Arc<Tunnel>,
    /// The mesh.
    pub(crate) store: Arc<Store>,
    /// What the next agent must know.
    pub(crate) records: Records,
    /// The process table that shows the node's containers.
    pub(crate) proc: PathBuf,
    /// Counters.
    pub(crate) metrics: EnrollmentMetrics,
    /// How pods are captured that do not say otherwise.
    pub(crate) defaults: PodDefaults,
    /// Listening sockets of pods that another agent hands over, by the cookies of their namespaces.
    pub(crate) inherited: HashMap<u64, Listeners>,
    /// Who is to be in the mesh.
    pub(crate) wishes: Wishes,
    /// Tells Kubernetes who is captured.
    pub(crate) annotator: Option<Arc<Annotator>>,
    /// Where pods are looked at.
    pub(crate) lookout: Arc<Lookout>,
}

/// One pod's place; its lock is held while the pod is being enrolled or released. An empty one is not kept.
type Slot = Arc<tokio::sync::Mutex<Option<Enrolled>>>;

#[derive(Debug)]
struct Enrolled {
    /// Its capture, and the watch over it.
    guard: Arc<Guard>,
    record: Record,
    /// What it was enrolled by.
    wanted: Wanted,
    /// Of its workload.
    uid: Arc<str>,
    /// Serves the pod's listeners until it is dropped.
    serving: PodHandle,
    health: Health,
}

/// What is known of an enrolled pod's capture.
#[derive(Debug)]
struct Health {
    /// Parts that were found lost and are not mended; none in a pod that is whole.
    lost: BTreeSet<Part>,
    /// When a connection was last made to prove it.
    proven: Instant,
    /// Failed repairs since it was whole.
    attempts: u32,
    /// When the next repair is due.
    retry_at: Instant,
}

impl Health {
    /// Of a pod that has just been proven.
    fn whole() -> Self {
        let now = Instant::now();
        Self { lost: BTreeSet::new(), proven: now, attempts: 0, retry_at: now }
    }

    /// Whether an inspection that found these parts lost tells something new. It says nothing of connections.
    fn is_changed(&self, lost: &BTreeSet<Part>) -> bool {
        let known = self.lost.iter().filter(|part| **part != Part::Connection);
        !known.eq(lost.iter())
    }
}

impl Enrolled {
    /// Whether it is enrolled as it is wanted.
    fn is_as(&self, wanted: &Wanted) -> bool {
        let uid = self.wanted.uid.as_deref();
        self.wanted.entry == wanted.entry && wanted.may_be(uid)
    }
}

/// A pod that is captured and served, but not proven.
struct Captured {
    guard: Arc<Guard>,
    uid: Arc<str>,
    serving: PodHandle,
}

impl Enroller {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { node, node_guard, bpffs, tunnel, store, records, proc, metrics, defaults, .. } = parts;
        let Parts { inherited, wishes, annotator, lookout, .. } = parts;
        let scribe = annotator
            .clone()
            .map(|annotator| -> Scribe { Box::new(move |pod, uid, mark| annotator.set(pod, uid, mark)) });
        Self {
            node,
            node_guard: Arc::new(node_guard),
            bpffs,
            tunnel,
            store,
            records,
            proc,
            states: States::new(metrics.pods.clone(), scribe),
            metrics,
            defaults,
            wishes,
            annotator,
            pods: Mutex::default(),
            lost: Mutex::default(),
            inherited: Mutex::new(inherited),
            retries: Retries::default(),
            busy: Mutex::default(),
            again: Notify::new(),
            turns: Semaphore::new(MAX_AT_WORK),
            counted: Counted::default(),
            repairs: Arc::new(Semaphore::new(MAX_REPAIRS)),
            guests: Mutex::default(),
            lookout,
            others_noted: Mutex::default(),
            changes: Arc::default(),
        }
    }

    /// Whether a pod is to be in the mesh.
    pub(crate) fn want(&self, pod: &PodKey) -> Want {
        self.wishes.want(pod)
    }

    /// The same of a pod that is just being started, which Kubernetes may not have told of yet.
    pub(crate) async fn decide(&self, pod: &PodKey, uid: Option<&str>, limit: Duration) -> Want {
        self.wishes.decide(pod, uid, limit).await
    }

    /// The pod as the data path sees it. Its workload says who it is; where there is none yet, its names do.
    fn pod(&self, pod: &PodKey, entry: &Enrollment, attachment: &Attachment, listeners: &Listeners) -> Pod {
        let snapshot = self.store.load();
        let workload = snapshot.workload_of_pod(&pod.namespace, &pod.name);
        let uid = workload.map_or_else(
            || Arc::from(format!("Kubernetes//Pod/{}/{}", pod.namespace, pod.name)),
            |workload| Arc::clone(&workload.uid),
        );
        Pod {
            uid,
            name: Arc::from(pod.name.as_str()),
            namespace: Arc::from(pod.namespace.as_str()),
            service_account: entry.service_account.as_deref().map(Arc::from),
            sockets: Arc::new(Sockets::new(Arc::clone(&self.node), attachment, self.proc.clone())),
            self_address: listeners.address(redirect::Direction::Hbone),
        }
    }

    /// Waits for a pod's place, which is made if it is not there.
    async fn lock(&self, pod: &PodKey) -> OwnedMutexGuard<Option<Enrolled>> {
        loop {
            let slot = Arc::clone(self.lock_pods().entry(pod.clone()).or_default());
            let enrolled = Arc::clone(&slot).lock_owned().await;
            // Whoever held it before may have found it empty and taken it out.
            if self.lock_pods().get(pod).is_some_and(|now| Arc::ptr_eq(now, &slot)) {
                return enrolled;
            }
        }
    }

    fn unlock(&self, pod: &PodKey, enrolled: OwnedMutexGuard<Option<Enrolled>>) {
        if enrolled.is_none() {
            self.lock_pods().remove(pod);
        }
    }

    /// Takes a pod's place if nobody is at work on it.
    fn try_lock(&self, pod: &PodKey) -> Option<OwnedMutexGuard<Option<Enrolled>>> {
        let slot = self.lock_pods().get(pod).map(Arc::clone)?;
        slot.try_lock_owned().ok().filter(|enrolled| enrolled.is_some())
    }

    fn enrolled_pods(&self) -> Vec<PodKey> {
        self.lock_pods().keys().cloned().collect()
    }

    /// What agents of other versions have captured.
    fn others(&self) -> OtherLayouts {
        OtherLayouts::of(self.node.pins())
    }

    fn lock_pods(&self) -> std::sync::MutexGuard<'_, HashMap<PodKey, Slot>> {
        self.pods.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_lost(&self) -> std::sync::MutexGuard<'_, HashMap<PodKey, Record>> {
        self.lost.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn lock_inherited(&self) -> std::sync::MutexGuard<'_, HashMap<u64, Listeners>> {
        self.inherited.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether somebody is at work on a pod.
    fn is_busy(&self, pod: &PodKey) -> bool {
        self.lock_pods().get(pod).is_some_and(|slot| slot.try_lock().is_err())
    }
}

fn listeners_of(mut listeners: Listeners) -> tunnel::Listeners {
    tunnel::Listeners {
        outbound: listeners.take(redirect::Direction::Outbound).into_iter().collect(),
        plaintext: listeners.take(redirect::Direction::Plaintext).into_iter().collect(),
        hbone: listeners.take(redirect::Direction::Hbone).into_iter().collect(),
        dns: listeners.take_dns(),
    }
}

impl Enroller {
    /// Looks at something, which is done again and again and waits for nothing.
    async fn look_at<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, EnrollError> {
        self.lookout.look(work).await.map_err(EnrollError::Panicked)
    }
}

/// Runs what blocks (netlink, eBPF, a connection that is waited for) where blocking is allowed.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, EnrollError> {
    tokio::task::spawn_blocking(work).await.map_err(EnrollError::Panicked)
}
