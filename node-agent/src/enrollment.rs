//! Which pods are captured: enrols and releases them as the CNI plugin, the mesh file and the kernel say.
//!
//! Each of these may speak late, twice or not at all, so everything here is a state that is brought about, not an event
//! that is handled: enrolling an enrolled pod does nothing, releasing a released one neither. Pods do not wait for one
//! another.
//!
//! Invariants. A pod counts as enrolled only after a connection of its own was seen to arrive at the agent. Three things end
//! capture, and nothing else does: the mesh file no longer wants the pod, the plugin says that its sandbox goes, or its
//! network namespace is proven gone. Every error leaves a captured pod captured, if need be refused, to be tried again; only
//! a pod that was not captured before is put back as it was. An enrolled pod's capture is watched ([`watch`]) and mended
//! ([`mend`]) for as long as it lives.

mod collect;
mod decisions;
mod error;
mod events;
mod freeze;
mod guests;
mod mend;
mod metrics;
mod options;
mod presence;
mod reconcile;
mod record;
mod retry;
mod sight;
mod states;
mod verify;
mod watch;

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use tokio::sync::{OwnedMutexGuard, RwLock, Semaphore};

use control::file::Enrollment;
use linux::netns::Netns;
use mesh::Store;
use redirect::{Attachment, Guard, Listeners, NodeCapture, NodeGuard, OtherLayouts, Part};
use tunnel::{Pod, PodHandle, Tunnel};

pub(crate) use decisions::Decisions;
pub(crate) use error::EnrollError;
pub(crate) use events::follow as follow_events;
pub(crate) use metrics::EnrollmentMetrics;
pub(crate) use options::PodDefaults;
pub(crate) use reconcile::{inherit, run};
pub(crate) use record::{PodKey, Record, Records};
use retry::Retries;
pub(crate) use sight::PodSight;
pub(crate) use states::{PodState, States};
pub(crate) use watch::watch;

use crate::pod_sockets::Sockets;

/// Pods that are being mended, or proven again, at once.
const MAX_REPAIRS: usize = 16;

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
    wanted: Mutex<Arc<Vec<Enrollment>>>,
    pods: Mutex<HashMap<PodKey, Slot>>,
    /// Captured, but not served: to be taken over again.
    lost: Mutex<HashMap<PodKey, Record>>,
    /// Captured and served by the agent before this one, with whose sockets they are served on.
    inherited: Mutex<HashMap<u64, Listeners>>,
    retries: Retries,
    states: States,
    repairs: Arc<Semaphore>,
    guests: Mutex<Arc<guests::Guests>>,
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
}

/// One pod's place; its lock is held while the pod is being enrolled or released. An empty one is not kept.
type Slot = Arc<tokio::sync::Mutex<Option<Enrolled>>>;

#[derive(Debug)]
struct Enrolled {
    /// Its capture, and the watch over it.
    guard: Arc<Guard>,
    record: Record,
    /// What it was enrolled by.
    entry: Enrollment,
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

/// A pod that is captured and served, but not proven.
struct Captured {
    guard: Arc<Guard>,
    uid: Arc<str>,
    serving: PodHandle,
}

/// Where a pod is, as whoever enrols it says.
#[derive(Debug)]
pub(crate) struct Location {
    /// Its network namespace.
    pub(crate) netns: Netns,
    /// A path by which it is found again, by this agent and the next.
    pub(crate) path: PathBuf,
    /// The runtime's name of its sandbox.
    pub(crate) container_id: Option<String>,
    /// The runtime's name of the network that the plugin was called for.
    pub(crate) network: String,
    /// Addresses that the pod must have, as the plugins before ours say.
    pub(crate) ips: Vec<IpAddr>,
}

impl Location {
    /// A namespace that was found at a path, without a runtime's word.
    fn found(netns: Netns, path: PathBuf) -> Self {
        Self { netns, path, container_id: None, network: String::new(), ips: Vec::new() }
    }

    /// The namespace of a pod of which there is a record.
    fn recorded(record: &Record, netns: Netns) -> Self {
        let Record { netns: path, container_id, network, .. } = record.clone();
        Self { netns, path, container_id, network, ips: Vec::new() }
    }
}

impl Enroller {
    pub(crate) fn new(parts: Parts) -> Self {
        let Parts { node, node_guard, bpffs, tunnel, store, records, proc, metrics, defaults, inherited } =
            parts;
        Self {
            node,
            node_guard: Arc::new(node_guard),
            bpffs,
            tunnel,
            store,
            records,
            proc,
            states: States::new(metrics.pods.clone()),
            metrics,
            defaults,
            wanted: Mutex::default(),
            pods: Mutex::default(),
            lost: Mutex::default(),
            inherited: Mutex::new(inherited),
            retries: Retries::default(),
            repairs: Arc::new(Semaphore::new(MAX_REPAIRS)),
            guests: Mutex::default(),
            others_noted: Mutex::default(),
            changes: Arc::default(),
        }
    }

    /// The entry of a pod that is to be in the mesh.
    pub(crate) fn wants(&self, pod: &PodKey) -> Option<Enrollment> {
        self.wanted().iter().find(|e| e.namespace == pod.namespace && e.name == pod.name).cloned()
    }

    /// Enrols a pod; returns once its capture is verified.
    pub(crate) async fn enrol(
        self: &Arc<Self>,
        pod: &PodKey,
        entry: &Enrollment,
        location: Location,
    ) -> Result<(), EnrollError> {
        let cookie = location.netns.cookie()?;
        let mut enrolled = self.lock(pod).await;
        let outcome = self.enrol_locked(pod, entry, location, cookie, &mut enrolled).await;
        self.unlock(pod, enrolled);
        outcome
    }

    async fn enrol_locked(
        self: &Arc<Self>,
        pod: &PodKey,
        entry: &Enrollment,
        location: Location,
        cookie: u64,
        enrolled: &mut Option<Enrolled>,
    ) -> Result<(), EnrollError> {
        if let Some(now) = enrolled.as_mut() {
            if now.guard.attachment().cookie() == cookie && now.entry == *entry {
                if location.container_id.is_some() && now.record.container_id != location.container_id {
                    now.record.container_id = location.container_id;
                    now.record.network = location.network;
                    self.records.write(&now.record)?;
                }
                return Ok(());
            }
            if now.guard.attachment().cookie() == cookie {
                tracing::info!(%pod, "the pod's entry has changed");
            } else {
                tracing::info!(%pod, "the pod has another network namespace now");
                self.release_locked(pod, enrolled).await?;
            }
        }
        let started = Instant::now();
        if enrolled.is_none() {
            self.states.set(pod, PodState::Pending("it is being enrolled".to_owned()));
        }
        self.metrics.pending.inc();
        let outcome = self.build(pod, entry, location, cookie).await;
        self.metrics.pending.dec();
        match outcome {
            Ok(new) => {
                let (took, addresses) = (started.elapsed(), new.guard.attachment().addresses());
                tracing::info!(%pod, cookie, ?addresses, ?took, "pod enrolled, its capture is verified");
                self.metrics.started.inc();
                self.metrics.enrol_time.observe(took.as_secs_f64());
                self.states.set(pod, PodState::Enrolled);
                // What served the pod before ends only now, when the new listeners have taken its place.
                if enrolled.replace(new).is_none() {
                    self.metrics.active.inc();
                }
                self.lock_lost().remove(pod);
                self.lock_inherited().remove(&cookie);
                Ok(())
            }
            Err(error) => {
                self.metrics.failed.inc();
                if enrolled.is_none() {
                    self.states.set(pod, PodState::Pending(error.to_string()));
                }
                Err(error)
            }
        }
    }

    async fn build(
        &self,
        pod: &PodKey,
        entry: &Enrollment,
        location: Location,
        cookie: u64,
    ) -> Result<Enrolled, EnrollError> {
        let Location { netns, path, container_id, network, ips } = location;
        self.refuse_guest(&netns)?;
        // By an agent before this one, perhaps of another layout.
        let adopted = self.node.is_enrolled(cookie) || self.others().cookies()?.contains(&cookie);
        let mut record =
            Record { pod: pod.clone(), netns: path, cookie, container_id, network, sysctls: Vec::new() };
        if adopted {
            record.sysctls = self.records.read(pod).map(|known| known.sysctls).unwrap_or_default();
        }
        self.records.write(&record)?;
        let inherited = self.lock_inherited().get(&cookie).map(Listeners::try_clone).transpose();
        let inherited = inherited.map_err(EnrollError::Inherited)?;
        let Captured { guard, uid, serving } = match self.capture(pod, entry, netns, inherited).await {
            Ok(captured) => captured,
            Err(error) => {
                self.give_up(pod, record, adopted, None).await;
                return Err(error);
            }
        };
        record.sysctls.extend(guard.attachment().changed_sysctls());
        self.records.write(&record)?;
        let verified = {
            let guard = Arc::clone(&guard);
            blocking(move || verify::verify(guard.attachment(), &ips, verify::AT_ENROLMENT)).await?
        };
        if let Err(error) = verified {
            self.give_up(pod, record, adopted, Some(guard)).await;
            return Err(error);
        }
        Ok(Enrolled { guard, record, entry: entry.clone(), uid, serving, health: Health::whole() })
    }

    /// Attaches and serves a pod, in the place of an earlier capture of it; with the listeners of that, if there are any.
    async fn capture(
        &self,
        pod: &PodKey,
        entry: &Enrollment,
        netns: Netns,
        inherited: Option<Listeners>,
    ) -> Result<Captured, EnrollError> {
        let node = Arc::clone(&self.node);
        let options = options::of(entry, self.defaults);
        let attach = move || {
            let (attachment, listeners) = Attachment::attach_with(&node, netns, options, inherited)?;
            let guard = Guard::new(&node, Arc::new(attachment), &listeners)?;
            Ok::<_, redirect::CaptureError>((Arc::new(guard), listeners))
        };
        let (guard, listeners) = blocking(attach).await??;
        let served = self.pod(pod, entry, guard.attachment(), &listeners);
        let uid = Arc::clone(&served.uid);
        let serving = self.tunnel.start(served, listeners_of(listeners));
        Ok(Captured { guard, uid, serving })
    }

    /// After a failure: a pod that was captured before stays so, to be tried again; another one is put back as it was.
    async fn give_up(&self, pod: &PodKey, record: Record, adopted: bool, guard: Option<Arc<Guard>>) {
        if adopted {
            self.lock_lost().insert(pod.clone(), record);
            return;
        }
        let node = Arc::clone(&self.node);
        let undo = move || match guard {
            Some(guard) => guard.release(&node).and_then(|()| guard.attachment().put_back(&record.sysctls)),
            None => Ok(()),
        };
        if let Err(error) | Ok(Err(error)) = blocking(undo).await.map(|done| done.map_err(EnrollError::from))
        {
            tracing::warn!(%pod, %error, "a failed enrolment left something behind");
        }
        if let Err(error) = self.records.remove(pod) {
            tracing::warn!(%pod, %error, "a failed enrolment left its record behind");
        }
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

    /// Releases a pod; one that is not enrolled is fine.
    pub(crate) async fn release(self: &Arc<Self>, pod: &PodKey) -> Result<(), EnrollError> {
        self.release_if(pod, |_| true).await
    }

    /// Releases a pod if it is in this sandbox: a late DEL of an old sandbox must not touch the new one's.
    pub(crate) async fn release_container(
        self: &Arc<Self>,
        pod: &PodKey,
        container_id: &str,
    ) -> Result<(), EnrollError> {
        let same = |enrolled: &Enrolled| match &enrolled.record.container_id {
            Some(known) => known == container_id,
            None => true,
        };
        self.release_if(pod, same).await
    }

    async fn release_if(
        self: &Arc<Self>,
        pod: &PodKey,
        condition: impl Fn(&Enrolled) -> bool,
    ) -> Result<(), EnrollError> {
        let mut enrolled = self.lock(pod).await;
        let outcome = match enrolled.as_ref() {
            Some(now) if condition(now) => self.release_locked(pod, &mut enrolled).await,
            Some(_) => Ok(()),
            None => {
                self.states.remove(pod);
                Ok(())
            }
        };
        self.unlock(pod, enrolled);
        outcome
    }

    async fn release_locked(
        self: &Arc<Self>,
        pod: &PodKey,
        enrolled: &mut Option<Enrolled>,
    ) -> Result<(), EnrollError> {
        let Some(now) = enrolled.as_ref() else { return Ok(()) };
        let started = Instant::now();
        let (node, released) = (Arc::clone(&self.node), Arc::clone(&now.guard));
        // First the marking, then the listeners: the other way round, what was just marked would find nobody.
        blocking(move || released.release(&node)).await??;
        let Some(Enrolled { guard, record, uid, serving, .. }) = enrolled.take() else { return Ok(()) };
        drop(serving);
        self.metrics.active.dec();
        self.metrics.stopped.inc();
        self.states.remove(pod);
        self.records.remove(pod)?;
        let took = started.elapsed();
        self.metrics.release_time.observe(took.as_secs_f64());
        tracing::info!(%pod, ?took, "pod released");
        tokio::spawn(Arc::clone(self).put_back_at_end(pod.clone(), uid, guard, record));
        Ok(())
    }

    /// Captured connections go on after a release, and need the route by which their packets come back to the agent; so
    /// that goes only when the last of them has ended, and not at all if the pod was enrolled again meanwhile.
    async fn put_back_at_end(self: Arc<Self>, pod: PodKey, uid: Arc<str>, guard: Arc<Guard>, record: Record) {
        const PERIOD: std::time::Duration = std::time::Duration::from_secs(1);
        while self.tunnel.connections().iter().any(|connection| connection.workload == uid) {
            if self.node.is_enrolled(record.cookie) {
                return;
            }
            tokio::time::sleep(PERIOD).await;
        }
        // With the pod's place held nobody enrols it between the question and the answer.
        let place = self.lock(&pod).await;
        if !self.node.is_enrolled(record.cookie) {
            match blocking(move || guard.attachment().put_back(&record.sysctls)).await {
                Ok(Ok(())) => tracing::debug!(%pod, "routes removed"),
                Ok(Err(error)) => tracing::warn!(%pod, %error, "routes not removed"),
                Err(error) => tracing::warn!(%pod, %error, "routes not removed"),
            }
        }
        self.unlock(&pod, place);
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

    fn wanted(&self) -> Arc<Vec<Enrollment>> {
        Arc::clone(&self.wanted.lock().unwrap_or_else(PoisonError::into_inner))
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

/// Runs what blocks (netlink, eBPF, a connection that is waited for) where blocking is allowed.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, EnrollError> {
    tokio::task::spawn_blocking(work).await.map_err(EnrollError::Panicked)
}
