//! Brings about what is wished, and keeps looking at what the kernel has.
//!
//! Whatever is said, by the file or by Kubernetes, is acted upon at once; each pod in a task of its own, so that one that cannot be captured
//! delays no other. Invariant: what is not known to be unwanted is not released.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use linux::netns::Netns;
use tokio::task::JoinSet;
use tokio::time::MissedTickBehavior;

use super::locate::Candidates;
use super::machine::Event;
use super::presence::{self, Presence};
use super::turn::Turn;
use super::{EnrollError, Enroller, Location, PodKey, Record, Want, Wanted, blocking};
use crate::readiness::Pending;

/// How often namespaces are looked at, and failed enrolments are tried again.
const PERIOD: Duration = Duration::from_secs(2);

/// Serves the pods that another agent hands over, with its sockets; everything else waits until the place is this agent's
/// alone. Returns how many there are.
pub(crate) async fn inherit(enroller: &Arc<Enroller>) -> usize {
    for record in enroller.read_records() {
        let is_inherited = enroller.lock_inherited().contains_key(&record.cookie);
        if is_inherited && let Err(error) = enroller.inherit(&record).await {
            tracing::error!(pod = %record.pod, %error, "not taken over from the agent before this one, to be tried again");
        }
    }
    enroller.enrolled_pods().len()
}

/// Brings about what is wished until the process ends; `pending` is done when each pod that was wanted at the start was tried.
pub(crate) async fn run(enroller: Arc<Enroller>, pending: Pending) {
    let (mut wishes, mut wanted) = (enroller.wishes.clone(), HashMap::new());
    let mut pending = Some(pending);
    {
        let _changes = enroller.changes.read().await;
        enroller.restore().await;
    }
    let mut tick = tokio::time::interval(PERIOD);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut is_due = false;
    loop {
        let are_complete = wishes.are_complete();
        let mut work = {
            let _changes = enroller.changes.read().await;
            enroller.note_wishes(&mut wanted);
            if is_due {
                enroller.take_over().await;
            }
            enroller.reconcile().await
        };
        if pending.is_some() && are_complete {
            // How each has ended is told by itself.
            while work.join_next().await.is_some() {}
            pending = None;
        } else {
            // They go on by themselves, and say when they have ended.
            work.detach_all();
        }
        is_due = tokio::select! {
            is_followed = wishes.changed() => {
                if !is_followed {
                    return;
                }
                false
            }
            () = enroller.again.notified() => false,
            _ = tick.tick() => true,
        };
    }
}

/// A pod on which a task is at work.
struct Busy {
    enroller: Arc<Enroller>,
    pod: PodKey,
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.enroller.lock_busy().remove(&self.pod);
        self.enroller.again.notify_one();
    }
}

impl Enroller {
    /// Notes what has changed of what is wanted: it is tried at once, however often it has failed before.
    fn note_wishes(&self, known: &mut HashMap<PodKey, Wanted>) {
        let now: HashMap<PodKey, Wanted> =
            self.wishes.all().into_iter().map(|wanted| (wanted.pod(), wanted)).collect();
        for (pod, wanted) in &now {
            if known.get(pod) != Some(wanted) {
                self.retries.succeeded(pod);
            }
        }
        let lost = self.lock_lost().clone();
        self.retries.retain(|pod| now.contains_key(pod) || lost.contains_key(pod));
        self.states.retain_pending(|pod| now.contains_key(pod) || lost.contains_key(pod));
        *known = now;
    }

    fn lock_busy(&self) -> std::sync::MutexGuard<'_, std::collections::BTreeSet<PodKey>> {
        self.busy.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Takes a pod for a task, unless one has it.
    fn take(self: &Arc<Self>, pod: &PodKey) -> Option<Busy> {
        let is_free = self.lock_busy().insert(pod.clone());
        is_free.then(|| Busy { enroller: Arc::clone(self), pod: pod.clone() })
    }

    /// The records of the agent before this one.
    fn read_records(&self) -> Vec<Record> {
        self.records.list().unwrap_or_else(|error| {
            tracing::error!(%error, "pods of the agent before this one are not taken over; they are refused meanwhile");
            Vec::new()
        })
    }

    /// Takes over what the agent before this one had captured, and removes what is left of pods that are gone.
    async fn restore(self: &Arc<Self>) {
        let mut known = HashSet::new();
        for record in self.read_records() {
            known.insert(record.cookie);
            if !self.lock_pods().contains_key(&record.pod) {
                self.states.on_pod(&record.pod, record.uid(), Event::Adopt { cookie: record.cookie });
                self.lock_lost().insert(record.pod.clone(), record);
            }
        }
        self.take_over().await;
        self.sweep(known).await;
    }

    /// Serves a pod with the sockets of an agent that still serves it too.
    async fn inherit(self: &Arc<Self>, record: &Record) -> Result<(), EnrollError> {
        let (path, cookie) = (record.netns.clone(), record.cookie);
        let present = blocking(move || presence::look(&path, cookie)).await?;
        let (Presence::There(netns), Some(wanted)) = (present, self.want_of(record)) else { return Ok(()) };
        self.enrol(&record.pod, &wanted, Location::recorded(record, netns)).await
    }

    /// Removes what is left of pods whose namespaces are gone, `known` being those of which there are records.
    async fn sweep(&self, known: HashSet<u64>) {
        let node = Arc::clone(&self.node);
        let swept = match blocking(move || redirect::leftovers::sweep(&node, &known)).await {
            Ok(Ok(swept)) => swept,
            Ok(Err(error)) => {
                tracing::warn!(%error, "leftovers of an agent before this one are not removed");
                return;
            }
            Err(error) => {
                tracing::warn!(%error, "leftovers of an agent before this one are not removed");
                return;
            }
        };
        if !swept.removed.is_empty() {
            tracing::info!(cookies = ?swept.removed, "left by an earlier agent of pods that are gone, removed");
        }
        for cookie in swept.unknown {
            tracing::warn!(
                cookie,
                "captured by an agent before this one, but nobody knows whose it is; it is refused until it is enrolled \
                 again, or `culvert detach` is run without an agent"
            );
        }
    }

    /// Takes over pods that are captured but not served: of the agent before this one, or lost to an error.
    async fn take_over(self: &Arc<Self>) {
        let lost: Vec<Record> = self.lock_lost().values().cloned().collect();
        let due = lost.into_iter().filter(|record| self.retries.is_due(&record.pod));
        let attempts = due.map(|record| async move {
            let pod = record.pod.clone();
            let mut turn = Turn::take(&self.turns).await;
            match self.take_over_one(record, &mut turn).await {
                Ok(()) => self.retries.succeeded(&pod),
                Err(error) => self.retries.failed(&pod, &error),
            }
        });
        futures_util::future::join_all(attempts).await;
    }

    async fn take_over_one(self: &Arc<Self>, record: Record, turn: &mut Turn<'_>) -> Result<(), EnrollError> {
        let (path, cookie) = (record.netns.clone(), record.cookie);
        let mut record = record;
        let netns = match blocking(move || presence::look(&path, cookie)).await? {
            Presence::There(netns) => Some(netns),
            Presence::Another(netns) if !self.is_process(&record.netns) => {
                return self.take_over_replaced(record, netns, turn).await;
            }
            // A process that has ended says nothing of its pod, if the pod can be found by others.
            Presence::Gone | Presence::Another(_) => match self.find_again(&record).await {
                Some(location) if location.netns.cookie()? == cookie => {
                    record.netns = location.path;
                    Some(location.netns)
                }
                Some(location) => return self.take_over_replaced(record, location.netns, turn).await,
                None => None,
            },
            // Its namespace is not seen where the runtime has it, but perhaps by its processes.
            Presence::Unknown(error) => match self.find_again(&record).await {
                Some(location) if location.netns.cookie()? == cookie => {
                    record.netns = location.path;
                    Some(location.netns)
                }
                _ => return Err(error.into()),
            },
        };
        match (netns, self.want(&record.pod), self.want_of(&record)) {
            (Some(netns), _, Some(wanted)) => {
                self.enrol(&record.pod, &wanted, Location::recorded(&record, netns)).await
            }
            // Captured and refused; whether it is wanted will be said.
            (Some(_), Want::Unknown, None) => Ok(()),
            (netns, _, _) => self.release_lost(&record, netns, turn).await,
        }
    }

    /// How a captured pod is wanted: as it is said now, and as it was when it was captured for as long as nobody says.
    pub(super) fn want_of(&self, record: &Record) -> Option<Wanted> {
        let uid = record.entry.as_ref().and_then(|entry| entry.uid.as_deref());
        match self.want(&record.pod) {
            // Another pod of the same name wants nothing of this one.
            Want::Yes(wanted) => Some(wanted).filter(|wanted| wanted.may_be(uid)),
            Want::No => None,
            Want::Unknown => record.remembered(),
        }
    }

    /// Captures a pod whose namespace has been replaced while nobody looked.
    async fn take_over_replaced(
        self: &Arc<Self>,
        record: Record,
        netns: Netns,
        turn: &mut Turn<'_>,
    ) -> Result<(), EnrollError> {
        let Some(wanted) = self.want_of(&record) else { return self.release_lost(&record, None, turn).await };
        tracing::warn!(pod = %record.pod, "the pod has another network namespace now, in which it is captured again");
        self.enrol(&record.pod, &wanted, Location::recorded(&record, netns)).await
    }

    /// Whether a path leads through the number of a process, which may be another process's by now.
    pub(super) fn is_process(&self, path: &Path) -> bool {
        path.starts_with(&self.proc) || path.starts_with("/proc")
    }

    /// Enrols what is wanted and can be found, releases what is not wanted any more; each pod in a task of its own.
    async fn reconcile(self: &Arc<Self>) -> JoinSet<()> {
        let mut due = Vec::new();
        for wanted in self.wishes.all() {
            let pod = wanted.pod();
            if self.is_settled(&pod, &wanted) {
                continue;
            }
            if !wanted.can_be_found() {
                if wanted.uid.is_some() {
                    // It is shown as such, and nobody may say that it is captured.
                    self.states.await_if_new(&pod, "it has no sandbox yet");
                }
            } else if self.retries.is_due(&pod)
                && let Some(busy) = self.take(&pod)
            {
                due.push((busy, wanted));
            }
        }
        let mut tasks = JoinSet::new();
        if !due.is_empty() {
            // They run already, so their kernels do. The plugin is called before that, and the watch finds it then.
            self.look_for_guests().await;
            let candidates = match due.iter().any(|(_, wanted)| !wanted.is_placed()) {
                true => self.candidates().await,
                false => Ok(Arc::default()),
            };
            let candidates = candidates.unwrap_or_else(|error| {
                tracing::error!(%error, "running pods are not found");
                Arc::default()
            });
            for (busy, wanted) in due {
                let (enroller, candidates) = (Arc::clone(self), Arc::clone(&candidates));
                tasks.spawn(async move {
                    let _changes = enroller.changes.read().await;
                    let _turn = Turn::take(&enroller.turns).await;
                    match enroller.enrol_found(&busy.pod, &wanted, &candidates).await {
                        Ok(()) => enroller.retries.succeeded(&busy.pod),
                        Err(error) => enroller.retries.failed(&busy.pod, &error),
                    }
                });
            }
        }
        for pod in self.enrolled_pods() {
            if !self.is_to_change(&pod) || !self.retries.is_due(&pod) {
                continue;
            }
            let Some(busy) = self.take(&pod) else { continue };
            let enroller = Arc::clone(self);
            tasks.spawn(async move {
                let _changes = enroller.changes.read().await;
                let mut turn = Turn::take(&enroller.turns).await;
                match enroller.change(&busy.pod, &mut turn).await {
                    Ok(()) => enroller.retries.succeeded(&busy.pod),
                    Err(error) => enroller.retries.failed(&busy.pod, &error),
                }
            });
        }
        tasks
    }

    /// Whether a pod is enrolled just as it is wanted, or somebody is at work on it; whether its namespace is still there is looked at
    /// elsewhere.
    fn is_settled(self: &Arc<Self>, pod: &PodKey, wanted: &Wanted) -> bool {
        if self.lock_lost().contains_key(pod) {
            return true;
        }
        match self.try_lock(pod) {
            Some(enrolled) => {
                enrolled.as_ref().is_some_and(|enrolled| enrolled.is_as(wanted) || !wanted.is_placed())
            }
            None => self.is_held(pod),
        }
    }

    /// Whether somebody holds a pod's place, to watch it or to put back what it had; then everything is looked at again as soon as
    /// that has ended, and not only when the time for it has come.
    fn is_held(self: &Arc<Self>, pod: &PodKey) -> bool {
        let is_held = self.is_busy(pod);
        if is_held && let Some(busy) = self.take(pod) {
            let enroller = Arc::clone(self);
            tokio::spawn(async move {
                let place = enroller.lock(&busy.pod).await;
                enroller.unlock(&busy.pod, place);
            });
        }
        is_held
    }

    /// Whether an enrolled pod is not wanted any more, or not as it is.
    fn is_to_change(self: &Arc<Self>, pod: &PodKey) -> bool {
        let Some(enrolled) = self.try_lock(pod) else {
            self.is_held(pod);
            return false;
        };
        match (enrolled.as_ref(), self.want(pod)) {
            (Some(enrolled), Want::Yes(wanted)) => !wanted.is_placed() && !enrolled.is_as(&wanted),
            (Some(_), Want::No) => true,
            _ => false,
        }
    }

    /// Releases a pod that is not wanted, and serves one that the plugin brought as it is wanted now.
    async fn change(self: &Arc<Self>, pod: &PodKey, turn: &mut Turn<'_>) -> Result<(), EnrollError> {
        let Want::Yes(wanted) = self.want(pod) else { return self.release(pod, turn).await };
        let enrolled = self.lock(pod).await;
        let known = enrolled.as_ref().map(|enrolled| (enrolled.record.clone(), enrolled.wanted.uid.clone()));
        self.unlock(pod, enrolled);
        match known {
            // Another pod of the same name: this one is gone.
            Some((_, uid)) if !wanted.may_be(uid.as_deref()) => self.release_gone(pod).await,
            Some((record, _)) => self.take_over_one(record, turn).await,
            None => Ok(()),
        }
    }

    /// Enrols a pod where it is found.
    async fn enrol_found(
        self: &Arc<Self>,
        pod: &PodKey,
        wanted: &Wanted,
        candidates: &Arc<Candidates>,
    ) -> Result<(), EnrollError> {
        match self.locate(wanted, candidates).await {
            Ok(location) => self.enrol(pod, wanted, location).await,
            Err(error) => {
                self.states.on_because(pod, Event::Await, error.to_string());
                Err(error)
            }
        }
    }
}
