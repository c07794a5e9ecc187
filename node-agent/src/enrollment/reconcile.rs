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

use super::{EnrollError, Enroller, Location, PodKey, blocking};
use crate::readiness::Pending;

/// How often namespaces are looked at, and failed enrolments are tried again.
const PERIOD: Duration = Duration::from_secs(2);

/// Follows the list of wanted pods until the process ends; `pending` is done when each pod there at the start was tried.
pub(crate) async fn run(
    enroller: Arc<Enroller>,
    mut wanted: watch::Receiver<Vec<Enrollment>>,
    pending: Pending,
) {
    enroller.set_wanted(wanted.borrow_and_update().clone());
    enroller.restore().await;
    enroller.reconcile().await;
    drop(pending);
    let mut tick = tokio::time::interval(PERIOD);
    tick.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        tokio::select! {
            changed = wanted.changed() => {
                if changed.is_err() {
                    return;
                }
                enroller.set_wanted(wanted.borrow_and_update().clone());
            }
            _ = tick.tick() => enroller.release_vanished().await,
        }
        enroller.reconcile().await;
    }
}

impl Enroller {
    fn set_wanted(&self, wanted: Vec<Enrollment>) {
        self.retries.reset();
        *self.wanted.lock().unwrap_or_else(std::sync::PoisonError::into_inner) = Arc::new(wanted);
    }

    /// Takes over what the agent before this one had captured, and removes what is left of pods that are gone.
    async fn restore(&self) {
        let records = match self.records.list() {
            Ok(records) => records,
            Err(error) => {
                tracing::error!(%error, "pods of the agent before this one are not taken over; they are refused meanwhile");
                return;
            }
        };
        let mut known = HashSet::new();
        for record in records {
            known.insert(record.cookie);
            let netns = open_with_cookie(&record.netns, record.cookie);
            let outcome = match (netns, self.wants(&record.pod)) {
                (Some(netns), Some(entry)) => {
                    let location = Location { netns, path: record.netns, container_id: record.container_id };
                    self.enrol(&record.pod, &entry, location).await
                }
                (netns, _) => self.forget(&record.pod, record.cookie, netns).await,
            };
            if let Err(error) = outcome {
                tracing::error!(pod = %record.pod, %error, "not taken over");
            }
        }
        for cookie in self.node.pins().cookies().unwrap_or_default() {
            if !known.contains(&cookie) {
                tracing::warn!(
                    cookie,
                    "captured by an agent before this one, but nobody knows whose it is; it is refused until it is enrolled \
                     again, or `culvert detach` is run without an agent"
                );
            }
        }
    }

    /// Removes what an earlier agent left of a pod that is gone or no longer wanted.
    async fn forget(&self, pod: &PodKey, cookie: u64, netns: Option<Netns>) -> Result<(), EnrollError> {
        tracing::info!(%pod, cookie, "left by an earlier agent, removed");
        let node = Arc::clone(&self.node);
        blocking(move || redirect::attachment::forget(&node, cookie, netns.as_ref())).await??;
        Ok(self.records.remove(pod)?)
    }

    /// Enrols what is wanted and can be found, releases what is not wanted any more.
    async fn reconcile(&self) {
        let wanted = self.wanted();
        let located: Vec<(PodKey, &Enrollment)> = wanted
            .iter()
            .filter(|e| e.netns.is_some() || e.container.is_some())
            .map(|e| (PodKey { namespace: e.namespace.clone(), name: e.name.clone() }, e))
            .collect();
        let attempts = located.iter().map(|(pod, entry)| async move {
            if self.retries.is_due(pod) {
                match self.enrol_located(pod, entry).await {
                    Ok(()) => self.retries.succeeded(pod),
                    Err(error) => self.retries.failed(pod, &error),
                }
            }
        });
        futures_util::future::join_all(attempts).await;
        for pod in self.enrolled_pods() {
            if self.wants(&pod).is_none()
                && let Err(error) = self.release(&pod).await
            {
                tracing::error!(%pod, %error, "not released");
            }
        }
    }

    /// Enrols a pod where its entry says that it is.
    async fn enrol_located(&self, pod: &PodKey, entry: &Enrollment) -> Result<(), EnrollError> {
        let (proc, wanted) = (self.proc.clone(), entry.clone());
        let (path, netns) = blocking(move || find(&proc, &wanted)).await??;
        self.enrol(pod, entry, Location { netns, path, container_id: None }).await
    }

    /// Releases pods whose namespace file is gone or is another one.
    async fn release_vanished(&self) {
        for pod in self.enrolled_pods() {
            let enrolled = self.lock(&pod).await;
            let record = enrolled.as_ref().map(|enrolled| enrolled.record.clone());
            self.unlock(&pod, enrolled);
            let vanished = record.is_some_and(|r| open_with_cookie(&r.netns, r.cookie).is_none());
            if vanished {
                tracing::info!(%pod, "the pod's network namespace is gone");
                if let Err(error) = self.release(&pod).await {
                    tracing::error!(%pod, %error, "not released");
                }
            }
        }
    }

    fn enrolled_pods(&self) -> Vec<PodKey> {
        self.lock_pods().keys().cloned().collect()
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

/// The namespace at `path`, if it is still the one that has this cookie.
fn open_with_cookie(path: &Path, cookie: u64) -> Option<Netns> {
    Netns::open(path).ok().filter(|netns| netns.cookie().is_ok_and(|now| now == cookie))
}
