//! Writes into the API which pods are captured: `ambient.istio.io/redirection` of `pods/status`.
//!
//! What is to be said of a pod comes from its machine, with the UID of the pod that it holds for; what is said now comes from the watch. The
//! difference is written, one write a pod at a time, again and again until it is done. Each write names the UID: another pod of the same
//! name is never annotated for this one. Invariant: `enabled` is sent only while the pod is enrolled; and what says so of a pod of this
//! node that is not in the mesh is taken back, whoever wrote it.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use kube::api::{Patch, PatchParams};
use kube::core::ApiResource;
use kube::{Api, Client};
use serde_json::json;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep_until, timeout};

use super::backoff::Backoff;
use super::metrics::{KubernetesMetrics, Wrote};
use super::object::{REDIRECTION, version};
use super::plan::{Plan, Word};
use super::told::Told;
use super::view::{Known, Standing, View};
use crate::enrollment::{Mark, PodKey};

/// Writes under way at once.
const WRITES: usize = 16;
/// How long one may take.
const LIMIT: Duration = Duration::from_secs(10);
const FIRST: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(30);

/// Knows what is to be written.
pub(crate) struct Annotator {
    desk: Mutex<Desk>,
    /// Something may be due.
    wake: Notify,
    /// A write has ended.
    ended: Notify,
}

#[derive(Default)]
struct Desk {
    /// Whether another agent writes now.
    is_closed: bool,
    /// What is to be said, and of which pod of that name; of any if its UID is not known.
    marks: HashMap<PodKey, (Option<Arc<str>>, Mark)>,
    /// The pods of the API.
    pages: HashMap<PodKey, Page>,
}

/// What is known of a pod's annotation.
struct Page {
    uid: Arc<str>,
    runtime_uid: Arc<str>,
    is_out: bool,
    plan: Plan,
    backoff: Backoff,
    not_before: Instant,
}

/// A write.
struct Write {
    pod: PodKey,
    uid: Arc<str>,
    word: Option<Word>,
}

/// What came of one.
enum Outcome {
    /// It made this version.
    Done(u64),
    /// The pod is not there any more, or is another one.
    Gone,
    /// To be tried again.
    Failed(String),
}

impl Annotator {
    /// Begins to write.
    pub(super) fn start(
        client: Client,
        pods: ApiResource,
        view: watch::Receiver<Arc<View>>,
        metrics: KubernetesMetrics,
    ) -> Arc<Self> {
        let annotator = Arc::new(Self { desk: Mutex::default(), wake: Notify::new(), ended: Notify::new() });
        tokio::spawn(Arc::clone(&annotator).run(client, pods, view, metrics));
        annotator
    }

    /// Says from now on of a pod what its mark allows. `uid` is the one that the runtime knows it by.
    pub(crate) fn set(&self, pod: &PodKey, uid: Option<&Arc<str>>, mark: Mark) {
        let mut desk = self.desk();
        desk.marks.insert(pod.clone(), (uid.cloned(), mark));
        desk.refresh(pod);
        drop(desk);
        self.wake.notify_one();
    }

    /// Writes nothing any more: another agent does.
    pub(crate) fn stop(&self) {
        self.desk().is_closed = true;
    }

    /// Whether the API tells of a pod, as far as is known.
    pub(crate) fn knows(&self, pod: &PodKey) -> bool {
        self.desk().pages.contains_key(pod)
    }

    /// Waits until nothing is said of a pod that may not be; that can be for ever.
    pub(crate) async fn settled(&self, pod: &PodKey) {
        loop {
            let ended = self.ended.notified();
            if self.desk().pages.get(pod).is_none_or(|page| page.plan.is_settled()) {
                return;
            }
            ended.await;
        }
    }

    async fn run(
        self: Arc<Self>,
        client: Client,
        pods: ApiResource,
        mut view: watch::Receiver<Arc<View>>,
        metrics: KubernetesMetrics,
    ) {
        let mut writes = JoinSet::new();
        loop {
            let free = WRITES.saturating_sub(writes.len());
            let (due, next) = self.desk().due(free);
            for write in due {
                let api = Api::namespaced_with(client.clone(), &write.pod.namespace, &pods);
                writes.spawn(async move {
                    let outcome = send(&api, &write).await;
                    (write, outcome)
                });
            }
            tokio::select! {
                () = self.wake.notified() => {}
                changed = view.changed() => match changed {
                    Ok(()) => {
                        let now = Arc::clone(&view.borrow_and_update());
                        self.desk().observe(&now);
                        self.ended.notify_waiters();
                    }
                    Err(_) => return,
                },
                Some(ended) = writes.join_next(), if !writes.is_empty() => {
                    if let Ok((write, outcome)) = ended {
                        metrics.annotations.get_or_create(&Wrote { outcome: outcome.as_str() }).inc();
                        self.desk().ended(&write, outcome);
                    }
                    self.ended.notify_waiters();
                }
                () = until(next) => {}
            }
        }
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Until something that has failed is due; for ever if nothing has.
async fn until(next: Option<Instant>) {
    match next {
        Some(next) => sleep_until(next).await,
        None => std::future::pending().await,
    }
}

impl Desk {
    /// Takes what the watch has seen.
    fn observe(&mut self, view: &View) {
        for (pod, known) in &view.pods {
            match self.pages.get_mut(pod).filter(|page| page.uid == known.uid) {
                Some(page) => page.observe(known),
                None => drop(self.pages.insert(pod.clone(), Page::new(known))),
            }
            self.refresh(pod);
        }
        if view.is_complete {
            self.pages.retain(|pod, _| view.pods.contains_key(pod));
            self.marks.retain(|pod, (_, mark)| *mark != Mark::Absent || view.pods.contains_key(pod));
        }
    }

    /// Has a pod's plan follow what may be said of it.
    fn refresh(&mut self, pod: &PodKey) {
        let Some(page) = self.pages.get_mut(pod) else { return };
        let of_it =
            self.marks.get(pod).filter(|(uid, _)| uid.as_ref().is_none_or(|uid| *uid == page.runtime_uid));
        let mark = match of_it {
            Some((_, mark)) => *mark,
            None if page.is_out => Mark::Absent,
            // Nobody here has looked at it yet; it may be captured by the agent before this one.
            None => Mark::Leave,
        };
        if page.plan.mark() != mark {
            page.plan.set(mark);
            page.backoff.reset();
            page.not_before = Instant::now();
        }
    }

    /// Begins what is due, and says when more will be.
    fn due(&mut self, free: usize) -> (Vec<Write>, Option<Instant>) {
        let (now, mut due, mut next) = (Instant::now(), Vec::new(), None::<Instant>);
        if self.is_closed {
            return (due, next);
        }
        for (pod, page) in &mut self.pages {
            if page.plan.is_settled() || page.plan.is_in_flight() {
                continue;
            }
            if page.not_before > now {
                next = Some(next.map_or(page.not_before, |next| next.min(page.not_before)));
            } else if due.len() < free
                && let Some(word) = page.plan.begin()
            {
                due.push(Write { pod: pod.clone(), uid: Arc::clone(&page.uid), word });
            }
        }
        (due, next)
    }

    fn ended(&mut self, write: &Write, outcome: Outcome) {
        let pod = &write.pod;
        let Some(page) = self.pages.get_mut(pod).filter(|page| page.uid == write.uid) else { return };
        match outcome {
            Outcome::Done(version) => {
                page.plan.written(version);
                // Who undoes it again and again is answered ever more slowly. What was asked for while this was written waits for nothing.
                if page.plan.is_settled() {
                    page.not_before = Instant::now() + page.backoff.wait();
                }
                tracing::debug!(%pod, says = write.word.and_then(Word::text), "annotation written");
            }
            Outcome::Gone => drop(self.pages.remove(pod)),
            Outcome::Failed(error) => {
                page.plan.failed();
                let wait = page.backoff.wait();
                page.not_before = Instant::now() + wait;
                tracing::warn!(%pod, error, again_in = ?wait, "annotation not written");
            }
        }
    }
}

impl Page {
    fn new(known: &Known) -> Self {
        Self {
            uid: Arc::clone(&known.uid),
            runtime_uid: Arc::clone(&known.runtime_uid),
            is_out: known.standing == Standing::Out,
            plan: Plan::new(known.says, known.version),
            backoff: Backoff::new(FIRST, LONGEST),
            not_before: Instant::now(),
        }
    }

    fn observe(&mut self, known: &Known) {
        self.is_out = known.standing == Standing::Out;
        self.plan.observe(known.says, known.version);
    }
}

impl Outcome {
    fn as_str(&self) -> &'static str {
        match self {
            Self::Done(_) => "done",
            Self::Gone => "gone",
            Self::Failed(_) => "failed",
        }
    }
}

async fn send(api: &Api<Told>, write: &Write) -> Outcome {
    let value = write.word.and_then(Word::text);
    let patch = json!({ "metadata": { "uid": &*write.uid, "annotations": { REDIRECTION: value } } });
    let (parameters, patch) = (PatchParams::default(), Patch::Merge(&patch));
    let sent = timeout(LIMIT, api.patch_status(&write.pod.name, &parameters, &patch)).await;
    match sent {
        Ok(Ok(object)) => Outcome::Done(version(object.metadata.resource_version.as_deref())),
        Ok(Err(kube::Error::Api(status))) if matches!(status.code, 404 | 409) => Outcome::Gone,
        Ok(Err(error)) => Outcome::Failed(error.to_string()),
        Err(_) => Outcome::Failed(format!("no answer of the Kubernetes API within {LIMIT:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What is due of the pod, if anything is due now.
    fn due(desk: &mut Desk) -> Option<Write> {
        desk.due(WRITES).0.pop()
    }

    #[test]
    fn what_changes_while_a_write_is_under_way_is_written_right_after_it() {
        let pod = PodKey { namespace: "demo".to_owned(), name: "a".to_owned() };
        let known = Known {
            uid: "1".into(),
            runtime_uid: "1".into(),
            standing: Standing::Undecided,
            ips: Vec::new(),
            says: None,
            version: 1,
        };
        let mut desk = Desk::default();
        desk.pages.insert(pod.clone(), Page::new(&known));
        desk.marks.insert(pod.clone(), (None, Mark::Enabled));
        desk.refresh(&pod);
        let first = due(&mut desk).unwrap();
        assert_eq!(first.word, Some(Word::Enabled));
        desk.marks.insert(pod.clone(), (None, Mark::Absent));
        desk.refresh(&pod);
        assert!(due(&mut desk).is_none(), "two writes at once");
        desk.ended(&first, Outcome::Done(2));
        let second = due(&mut desk).unwrap();
        assert_eq!(second.word, None);
        desk.ended(&second, Outcome::Done(3));
        // Somebody writes it again, and is answered, but not at once.
        let page = desk.pages.get_mut(&pod).unwrap();
        page.observe(&Known { says: Some(Word::Enabled), version: 4, ..known });
        assert!(due(&mut desk).is_none());
        assert!(desk.due(WRITES).1.is_some());
    }
}
