//! Brings about what the mesh file wants, and keeps looking at what the kernel has.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use control::file::Enrollment;
use linux::container;
use linux::netns::Netns;
use tokio::sync::watch;
use tokio::time::MissedTickBehavior;

use super::presence::{self, Presence};
use super::{EnrollError, Enroller, Location, PodKey, Record, blocking};
use crate::readiness::Pending;

/// How often namespaces are looked at, and failed enrolments are tried again.
const PERIOD: Duration = Duration::from_secs(2);

/// Serves the pods that another agent hands over, with its sockets; everything else waits until the place is this agent's
/// alone. Returns how many there are.
pub(crate) async fn inherit(enroller: &Arc<Enroller>, wanted: &watch::Receiver<Vec<Enrollment>>) -> usize {
    enroller.set_wanted(wanted.borrow().clone());
    for record in enroller.read_records() {
        let is_inherited = enroller.lock_inherited().contains_key(&record.cookie);
        if is_inherited && let Err(error) = enroller.inherit(&record).await {
            tracing::error!(pod = %record.pod, %error, "not taken over from the agent before this one, to be tried again");
        }
    }
    enroller.enrolled_pods().len()
}

/// Follows the list of wanted pods until the process ends; `pending` is done when each pod there at the start was tried.
pub(crate) async fn run(
    enroller: Arc<Enroller>,
    mut wanted: watch::Receiver<Vec<Enrollment>>,
    pending: Pending,
) {
    enroller.set_wanted(wanted.borrow_and_update().clone());
    {
        let _changes = enroller.changes.read().await;
        enroller.restore().await;
        enroller.reconcile().await;
    }
    drop(pending);
    let mut tick = tokio::time::interval(PERIOD);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        let changed = tokio::select! {
            changed = wanted.changed() => match changed {
                Ok(()) => true,
                Err(_) => return,
            },
            _ = tick.tick() => false,
        };
        let _changes = enroller.changes.read().await;
        if changed {
            enroller.set_wanted(wanted.borrow_and_update().clone());
        } else {
            enroller.take_over().await;
        }
        enroller.reconcile().await;
    }
}

impl Enroller {
    fn set_wanted(&self, wanted: Vec<Enrollment>) {
        self.retries.reset();
        let keep = |pod: &PodKey| wanted.iter().any(|e| e.namespace == pod.namespace && e.name == pod.name);
        self.states.retain_pending(keep);
        *self.wanted.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Arc::new(wanted);
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
        let (Presence::There(netns), Some(entry)) = (present, self.wants(&record.pod)) else { return Ok(()) };
        self.enrol(&record.pod, &entry, Location::recorded(record, netns)).await
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
        for record in lost {
            let pod = record.pod.clone();
            if !self.retries.is_due(&pod) {
                continue;
            }
            match self.take_over_one(record).await {
                Ok(()) => self.retries.succeeded(&pod),
                Err(error) => self.retries.failed(&pod, &error),
            }
        }
    }

    async fn take_over_one(self: &Arc<Self>, record: Record) -> Result<(), EnrollError> {
        let (path, cookie) = (record.netns.clone(), record.cookie);
        let netns = match blocking(move || presence::look(&path, cookie)).await? {
            Presence::There(netns) => Some(netns),
            Presence::Another(netns) if !self.is_process(&record.netns) => {
                return self.take_over_replaced(record, netns).await;
            }
            Presence::Gone | Presence::Another(_) => None,
            Presence::Unknown(error) => return Err(error.into()),
        };
        match (netns, self.wants(&record.pod)) {
            (Some(netns), Some(entry)) => {
                self.enrol(&record.pod, &entry, Location::recorded(&record, netns)).await
            }
            (netns, _) => self.forget(&record, netns).await,
        }
    }

    /// Captures a pod whose namespace has been replaced while nobody looked.
    async fn take_over_replaced(self: &Arc<Self>, record: Record, netns: Netns) -> Result<(), EnrollError> {
        self.forget(&record, None).await?;
        let Some(entry) = self.wants(&record.pod) else { return Ok(()) };
        tracing::warn!(pod = %record.pod, "the pod has another network namespace now, in which it is captured again");
        self.enrol(&record.pod, &entry, Location::recorded(&record, netns)).await
    }

    /// Whether a path leads through the number of a process, which may be another process's by now.
    pub(super) fn is_process(&self, path: &Path) -> bool {
        path.starts_with(&self.proc) || path.starts_with("/proc")
    }

    /// Removes what an earlier agent left of a pod that is gone or no longer wanted.
    async fn forget(&self, record: &Record, netns: Option<Netns>) -> Result<(), EnrollError> {
        let pod = &record.pod;
        tracing::info!(%pod, cookie = record.cookie, "left by an earlier agent, removed");
        let (node, cookie, sysctls) = (Arc::clone(&self.node), record.cookie, record.sysctls.clone());
        blocking(move || redirect::attachment::forget(&node, cookie, netns.as_ref(), &sysctls)).await??;
        self.lock_lost().remove(pod);
        self.lock_inherited().remove(&record.cookie);
        Ok(self.records.remove(pod)?)
    }

    /// Enrols what is wanted and can be found, releases what is not wanted any more.
    async fn reconcile(self: &Arc<Self>) {
        let wanted = self.wanted();
        let located: Vec<(PodKey, &Enrollment)> = wanted
            .iter()
            .filter(|e| e.netns.is_some() || e.container.is_some())
            .map(|e| (PodKey { namespace: e.namespace.clone(), name: e.name.clone() }, e))
            .collect();
        let mut due = Vec::new();
        for (pod, entry) in located {
            if self.retries.is_due(&pod) && !self.is_settled(&pod, entry).await {
                due.push((pod, entry));
            }
        }
        if !due.is_empty() {
            // They run already, so their kernels do. The plugin is called before that, and the watch finds it then.
            self.look_for_guests().await;
        }
        let attempts = due.iter().map(|(pod, entry)| async move {
            match self.enrol_located(pod, entry).await {
                Ok(()) => self.retries.succeeded(pod),
                Err(error) => self.retries.failed(pod, &error),
            }
        });
        futures_util::future::join_all(attempts).await;
        for pod in self.enrolled_pods() {
            self.follow_entry(&pod).await;
            if self.wants(&pod).is_none()
                && let Err(error) = self.release(&pod).await
            {
                tracing::error!(%pod, %error, "not released");
            }
        }
    }

    /// Whether a pod is enrolled just as its entry wants it; whether its namespace is still there is looked at elsewhere.
    async fn is_settled(&self, pod: &PodKey, entry: &Enrollment) -> bool {
        let enrolled = self.lock(pod).await;
        let settled = enrolled.as_ref().is_some_and(|enrolled| enrolled.entry == *entry);
        self.unlock(pod, enrolled);
        settled
    }

    /// Serves a pod that the plugin brought as its entry says now.
    async fn follow_entry(self: &Arc<Self>, pod: &PodKey) {
        let Some(entry) = self.wants(pod).filter(|entry| entry.netns.is_none() && entry.container.is_none())
        else {
            return;
        };
        if self.is_settled(pod, &entry).await {
            return;
        }
        let enrolled = self.lock(pod).await;
        let record = enrolled.as_ref().map(|enrolled| enrolled.record.clone());
        self.unlock(pod, enrolled);
        if let Some(record) = record
            && self.retries.is_due(pod)
            && let Err(error) = self.take_over_one(record).await
        {
            self.retries.failed(pod, &error);
        }
    }

    /// Enrols a pod where its entry says that it is.
    async fn enrol_located(self: &Arc<Self>, pod: &PodKey, entry: &Enrollment) -> Result<(), EnrollError> {
        let (proc, wanted) = (self.proc.clone(), entry.clone());
        let (path, netns) = blocking(move || find(&proc, &wanted)).await??;
        self.enrol(pod, entry, Location::found(netns, path)).await
    }
}

fn find(proc: &Path, entry: &Enrollment) -> Result<(PathBuf, Netns), EnrollError> {
    let path = match (&entry.netns, &entry.container) {
        (Some(path), _) => path.clone(),
        (None, Some(id)) => container::netns_of(proc, id)?,
        (None, None) => return Err(EnrollError::NoLocation),
    };
    let netns = Netns::open(&path)?;
    Ok((path, netns))
}
