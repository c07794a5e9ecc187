//! The watch over all captured pods, for as long as they live: each is inspected every two seconds, and proven by a
//! connection every half minute.
//!
//! The loop itself only looks, which takes a fraction of a millisecond a pod, spread over the period; whatever may wait (a
//! repair, a connection) is a task of its own, of which there is a bounded number. So a pod that cannot be mended delays
//! the sight of no other.

use std::collections::{BTreeSet, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, PoisonError};
use std::time::{Duration, Instant};

use redirect::{Dropped, Guard, Line, NodeCapture, Part, Report};
use tokio::time::MissedTickBehavior;

use super::machine::Event;
use super::metrics::{Lost, Repaired};
use super::presence::{self, Presence};
use super::record::Record;
use super::{EnrollError, Enroller, Location, PodKey, Want, blocking, verify};

/// How often each pod is inspected: what is lost is found within this, and mended right after.
const PERIOD: Duration = Duration::from_secs(2);
/// The part of it over which the inspections are spread.
const SPREAD: Duration = Duration::from_millis(1500);
/// Longest pause between two inspections.
const PAUSE: Duration = Duration::from_millis(50);
/// How often a pod is proven by a connection.
const PROOF: Duration = Duration::from_secs(30);

/// Watches until the process ends.
pub(crate) async fn watch(enroller: Arc<Enroller>) {
    let mut tick = tokio::time::interval(PERIOD);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tick.tick().await;
        {
            let _changes = enroller.changes.read().await;
            enroller.watch_node().await;
            enroller.look_for_guests().await;
        }
        enroller.watch_pods().await;
    }
}

impl Enroller {
    /// Looks at the node's half, and mends it.
    async fn watch_node(&self) {
        let report = self.look_at_node().await;
        self.note_others(&report);
        for part in report.lost() {
            self.metrics.lost.get_or_create(&Lost { reason: part.as_str() }).inc();
        }
        if !report.is_whole() {
            tracing::warn!(lost = report.problems(), "the node's capture is not whole");
            let (node, guard, bpffs) =
                (Arc::clone(&self.node), Arc::clone(&self.node_guard), self.bpffs.clone());
            let is_guarded = self.defaults.guard;
            let open = move || {
                let node = NodeCapture::open(&bpffs)?;
                redirect::egress::prepare(&node, is_guarded)?;
                Ok(node)
            };
            let repair = move || guard.repair(&node, open);
            let outcome = match blocking(repair).await.map(|done| done.map_err(EnrollError::from)) {
                Ok(Ok(())) => {
                    tracing::warn!(lost = report.problems(), "the node's capture is mended");
                    "mended"
                }
                Ok(Err(error)) | Err(error) => {
                    tracing::error!(%error, "the node's capture is not mended");
                    "failed"
                }
            };
            self.metrics.repairs.get_or_create(&Repaired { outcome }).inc();
        }
        match self.others().retire() {
            Ok(retired) if retired.is_empty() => {}
            Ok(retired) => tracing::info!(?retired, "another version's capture has no pod left, removed"),
            Err(error) => tracing::warn!(%error, "another version's capture is not removed"),
        }
    }

    /// Counts programs of others, and tells of those that are new.
    fn note_others(&self, report: &Report) {
        let noted = |line: &Line| Some(format!("{}: {}", line.name, line.note.as_ref()?.what));
        let now: BTreeSet<String> = report.lines.iter().filter_map(noted).collect();
        self.metrics.others.set(i64::try_from(now.len()).unwrap_or(i64::MAX));
        let mut known = self.others_noted.lock().unwrap_or_else(PoisonError::into_inner);
        for new in now.difference(&known) {
            tracing::warn!("{new}; see `culvert verify`");
        }
        *known = now;
    }

    /// What an inspection of the node's half finds.
    pub(super) async fn look_at_node(&self) -> Report {
        let (node, guard) = (Arc::clone(&self.node), Arc::clone(&self.node_guard));
        // A panic in there is logged by the runtime; nothing is known then, and nothing is to be done about it.
        self.look_at(move || guard.inspect(&node)).await.unwrap_or_default()
    }

    async fn watch_pods(self: &Arc<Self>) {
        let agents = Arc::new(self.agents().await);
        let pods = self.enrolled_pods();
        let pause = (SPREAD / u32::try_from(pods.len().max(1)).unwrap_or(u32::MAX)).min(PAUSE);
        for pod in pods {
            {
                let _changes = self.changes.read().await;
                self.watch_pod(&pod, &agents).await;
            }
            tokio::time::sleep(pause).await;
        }
    }

    /// The cookies of the pods that connect(2) finds an agent for. An error is as good as none: each pod is looked at again
    /// before it counts as lost.
    async fn agents(&self) -> HashSet<u64> {
        let guard = Arc::clone(&self.node_guard);
        match self.look_at(move || guard.agents()).await {
            Ok(Ok(agents)) => agents,
            Ok(Err(error)) => {
                tracing::warn!(%error, "the listeners of pods cannot be listed");
                HashSet::new()
            }
            Err(_) => HashSet::new(),
        }
    }

    async fn watch_pod(self: &Arc<Self>, pod: &PodKey, agents: &Arc<HashSet<u64>>) {
        // Whoever holds the place is enrolling, releasing or mending the pod.
        let Some(mut enrolled) = self.try_lock(pod) else { return };
        let Some(now) = enrolled.as_mut() else { return };
        let (path, cookie) = (now.record.netns.clone(), now.record.cookie);
        if !path.as_os_str().is_empty() {
            let record = now.record.clone();
            match self.look_at(move || presence::look(&path, cookie)).await {
                Ok(Presence::There(_)) => {}
                Ok(Presence::Gone | Presence::Another(_)) => {
                    drop(enrolled);
                    self.spawn(pod, async move |enroller, pod| enroller.follow(&pod, record).await);
                    return;
                }
                Ok(Presence::Unknown(error)) | Err(EnrollError::Netns(error)) => {
                    tracing::warn!(%pod, %error, "the pod stays captured");
                }
                Err(error) => tracing::warn!(%pod, %error, "the pod stays captured"),
            }
        }
        tell_dropped(pod, &now.guard);
        let report = self.look(&now.guard, Arc::clone(agents)).await;
        let lost: BTreeSet<Part> = report.lost().into_iter().collect();
        let health = &mut now.health;
        if lost.is_empty() && health.lost.is_empty() {
            if health.proven.elapsed() >= PROOF {
                health.proven = Instant::now();
                let guard = Arc::clone(&now.guard);
                self.spawn(pod, async move |enroller, pod| enroller.prove_again(&pod, guard).await);
            }
        } else if health.is_changed(&lost) || Instant::now() >= health.retry_at {
            self.spawn(pod, async move |enroller, pod| enroller.mend(&pod, None).await);
        }
    }

    /// What an inspection of a pod finds.
    pub(super) async fn look(&self, guard: &Arc<Guard>, agents: Arc<HashSet<u64>>) -> Report {
        let (node, looked) = (Arc::clone(&self.node), Arc::clone(guard));
        let mut report = self.look_at(move || looked.inspect(&node, &agents)).await.unwrap_or_default();
        report.lines.push(self.see_guest(guard.attachment().netns()));
        report
    }

    /// The same with the listeners as they are just now.
    pub(super) async fn look_closely(&self, guard: &Arc<Guard>) -> Report {
        let agents = Arc::new(self.agents().await);
        self.look(guard, agents).await
    }

    /// Runs what may wait; if too much of that is under way, the next round sees the same again.
    fn spawn<F>(self: &Arc<Self>, pod: &PodKey, work: impl FnOnce(Arc<Self>, PodKey) -> F)
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let Ok(permit) = Arc::clone(&self.repairs).try_acquire_owned() else { return };
        let work = work(Arc::clone(self), pod.clone());
        let changes = Arc::clone(&self.changes);
        tokio::spawn(async move {
            let _changes = changes.read().await;
            work.await;
            drop(permit);
        });
    }

    /// Proves a running pod.
    async fn prove_again(self: Arc<Self>, pod: &PodKey, guard: Arc<Guard>) {
        let proven = Arc::clone(&guard);
        let outcome = blocking(move || verify::verify(proven.attachment(), &[], verify::IN_LIFE)).await;
        if let Ok(Err(error)) = outcome {
            self.mend(pod, Some((guard, error.to_string()))).await;
        }
    }

    /// A pod's namespace is not at its path any more: another one is, or none.
    async fn follow(self: Arc<Self>, pod: &PodKey, record: Record) {
        let (path, cookie) = (record.netns.clone(), record.cookie);
        let is_process = self.is_process(&path);
        let location = match blocking(move || presence::look(&path, cookie)).await {
            Ok(Presence::Another(netns)) if !is_process => Location::recorded(&record, netns),
            // A process that has ended says nothing of its pod, if the pod can be found by others.
            Ok(Presence::Another(_) | Presence::Gone) => match self.find_again(&record).await {
                Some(location) => location,
                None => {
                    tracing::info!(%pod, "the pod's network namespace is gone");
                    if let Err(error) = self.release_gone(pod).await {
                        tracing::error!(%pod, %error, "not released");
                    }
                    return;
                }
            },
            _ => return,
        };
        if location.netns.cookie().is_ok_and(|now| now == cookie) {
            self.note_path(pod, location.path).await;
            return;
        }
        let Want::Yes(wanted) = self.want(pod) else { return };
        let why = format!("another network namespace is at {} now", location.path.display());
        tracing::warn!(%pod, lost = why, "capture lost; the pod is captured again in its new network namespace");
        self.metrics.lost.get_or_create(&Lost { reason: Part::Netns.as_str() }).inc();
        self.states.on_because(pod, Event::Lost, why);
        let (path, now_cookie) = (location.path.clone(), location.netns.cookie());
        let outcome = match self.enrol(pod, &wanted, location).await {
            Ok(()) => "anew",
            Err(error) => {
                tracing::error!(%pod, %error, "the pod is not captured in its new network namespace");
                if let Ok(cookie) = now_cookie {
                    let record = Record { netns: path, cookie, sysctls: Vec::new(), ..record };
                    self.lock_lost().insert(pod.clone(), record);
                }
                "failed"
            }
        };
        self.metrics.repairs.get_or_create(&Repaired { outcome }).inc();
    }

    /// Where a pod is that Kubernetes knows, by its processes.
    pub(super) async fn find_again(&self, record: &Record) -> Option<Location> {
        let wanted = self.want_of(record)?;
        if wanted.is_placed() || !wanted.can_be_found() {
            return None;
        }
        let candidates = self.candidates().await.ok()?;
        let found = self.locate(&wanted, &candidates).await.ok()?;
        Some(Location { container_id: record.container_id.clone(), network: record.network.clone(), ..found })
    }

    /// Keeps another path to the namespace that a pod is captured in.
    async fn note_path(&self, pod: &PodKey, path: PathBuf) {
        let mut enrolled = self.lock(pod).await;
        if let Some(now) = enrolled.as_mut() {
            now.record.netns = path;
            if let Err(error) = self.records.write(&now.record) {
                tracing::warn!(%pod, %error, "the next agent will not find the pod at its new path");
            }
        }
        self.unlock(pod, enrolled);
    }
}

/// Writes down what the egress guard dropped, once a look: a flood of packets is one line.
fn tell_dropped(pod: &PodKey, guard: &Guard) {
    if let Some(Dropped { count, last }) = guard.attachment().newly_guarded() {
        tracing::info!(target: "capture", %pod, count, %last, "egress guard dropped TCP that goes past capture");
    }
}
