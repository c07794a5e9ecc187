//! Does what a pod's machine says is to be done, step by step, and reports what came of each.
//!
//! The pod's place is locked meanwhile, so that one order at a time is carried out. The first error of an order is the one that is told.

use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use linux::netns::Netns;
use redirect::{Attachment, Guard, Listeners};

use super::machine::{Event, Step};
use super::record::{Record, Remembered};
use super::turn::Turn;
use super::wishes::{Want, Wanted};
use super::{
    Captured, EnrollError, Enrolled, Enroller, Health, PodKey, blocking, listeners_of, options, other_mesh,
    verify,
};

/// How long a release waits for the annotation to be taken back. An API that is away must not keep a pod captured that its owner
/// wants out; the annotation follows when it is back.
const WITHDRAWAL: Duration = Duration::from_secs(3);
/// How long a pod goes on taking tunnels after that. Its peers learn by the control plane that it takes none, some tenths of a second after the
/// API does; until then they would be refused.
const FAREWELL: Duration = Duration::from_secs(2);

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
    /// Addresses that the pod must have, as whoever enrols it says.
    pub(crate) ips: Vec<IpAddr>,
}

impl Location {
    /// A namespace that was found at a path, without a runtime's word.
    pub(super) fn found(netns: Netns, path: PathBuf) -> Self {
        Self { netns, path, container_id: None, network: String::new(), ips: Vec::new() }
    }

    /// The namespace of a pod of which there is a record.
    pub(super) fn recorded(record: &Record, netns: Netns) -> Self {
        let Record { netns: path, container_id, network, .. } = record.clone();
        Self { netns, path, container_id, network, ips: Vec::new() }
    }
}

/// An order, and what its steps have made so far.
enum Work<'a, 't> {
    /// To capture a pod.
    Enrol(Box<Enrolment>),
    /// To let go of one that this process serves; whoever has a turn for it has time to tell its peers first.
    Release { patience: Option<&'a mut Turn<'t>> },
    /// To let go of one that an agent before this one has captured.
    Forget { record: Box<Record>, netns: Option<Netns>, patience: Option<&'a mut Turn<'t>> },
}

/// A capture that is being made.
struct Enrolment {
    wanted: Wanted,
    location: Location,
    record: Record,
    started: Instant,
    captured: Option<Captured>,
}

impl Enroller {
    /// Enrols a pod; returns once its capture is verified.
    pub(crate) async fn enrol(
        self: &Arc<Self>,
        pod: &PodKey,
        wanted: &Wanted,
        location: Location,
    ) -> Result<(), EnrollError> {
        let cookie = location.netns.cookie()?;
        let mut enrolled = self.lock(pod).await;
        let outcome = self.enrol_locked(pod, wanted, location, cookie, &mut enrolled).await;
        self.unlock(pod, enrolled);
        outcome
    }

    async fn enrol_locked(
        self: &Arc<Self>,
        pod: &PodKey,
        wanted: &Wanted,
        location: Location,
        cookie: u64,
        enrolled: &mut Option<Enrolled>,
    ) -> Result<(), EnrollError> {
        if let Some(now) = enrolled.as_mut() {
            let is_there = now.guard.attachment().cookie() == cookie;
            if is_there && now.is_as(wanted) {
                if location.container_id.is_some() && now.record.container_id != location.container_id {
                    now.record.container_id = location.container_id;
                    now.record.network = location.network;
                    self.records.write(&now.record)?;
                }
                self.lock_lost().remove(pod);
                return Ok(());
            }
            let news = if is_there {
                "the pod's entry has changed"
            } else {
                "the pod has another network namespace now"
            };
            tracing::info!(%pod, "{news}");
        }
        // By an agent before this one, perhaps of another layout.
        let adopted = self.node.is_enrolled(cookie) || self.others().cookies()?.contains(&cookie);
        let known = adopted.then(|| self.records.read(pod)).flatten();
        let record = Record {
            pod: pod.clone(),
            netns: location.path.clone(),
            cookie,
            container_id: location.container_id.clone(),
            network: location.network.clone(),
            sysctls: known.map(|known| known.sysctls).unwrap_or_default(),
            entry: Some(Remembered::of(wanted)),
            boot: None,
        };
        let work =
            Enrolment { wanted: wanted.clone(), location, record, started: Instant::now(), captured: None };
        self.metrics.pending.inc();
        let order = Event::Enrol { cookie, adopted };
        let outcome = self.drive(pod, order, Work::Enrol(Box::new(work)), enrolled).await;
        self.metrics.pending.dec();
        if outcome.is_err() {
            self.metrics.failed.inc();
        }
        outcome
    }

    /// Carries out an order.
    async fn drive(
        self: &Arc<Self>,
        pod: &PodKey,
        order: Event,
        mut work: Work<'_, '_>,
        enrolled: &mut Option<Enrolled>,
    ) -> Result<(), EnrollError> {
        let mut outcome = Ok(());
        let mut step = match &work {
            Work::Enrol(enrolment) => self.states.on_pod(pod, enrolment.wanted.uid.clone(), order),
            Work::Release { .. } | Work::Forget { .. } => self.states.on(pod, order),
        };
        while step != Step::Rest {
            let done = self.carry_out(step, pod, &mut work, enrolled).await;
            let event = step.report(done.is_ok());
            step = match done {
                Ok(()) => self.states.on(pod, event),
                Err(error) => {
                    let next = self.states.on_because(pod, event, error.to_string());
                    if outcome.is_ok() {
                        outcome = Err(error);
                    } else {
                        tracing::warn!(%pod, %error, "besides");
                    }
                    next
                }
            };
        }
        if let (Err(_), Work::Enrol(enrolment)) = (&outcome, work)
            && self.states.is_held(pod)
        {
            // Captured as before, if at all served; to be tried again.
            self.lock_lost().insert(pod.clone(), enrolment.record);
        }
        outcome
    }

    async fn carry_out(
        self: &Arc<Self>,
        step: Step,
        pod: &PodKey,
        work: &mut Work<'_, '_>,
        enrolled: &mut Option<Enrolled>,
    ) -> Result<(), EnrollError> {
        match (step, work) {
            (Step::Attach, Work::Enrol(enrolment)) => self.attach(pod, enrolment).await,
            (Step::Prove, Work::Enrol(enrolment)) => enrolment.prove().await,
            (Step::Keep, Work::Enrol(enrolment)) => {
                self.keep(pod, enrolment, enrolled);
                Ok(())
            }
            (Step::Undo, Work::Enrol(enrolment)) => self.undo(pod, enrolment).await,
            (Step::Withdraw, Work::Release { patience } | Work::Forget { patience, .. }) => {
                if let Some(turn) = patience {
                    self.withdraw(pod, turn).await;
                }
                Ok(())
            }
            (Step::Release, Work::Forget { record, netns, .. }) => self.forget(record, netns.take()).await,
            (Step::Release, Work::Enrol(_) | Work::Release { .. }) => self.let_go(pod, enrolled).await,
            (step, _) => {
                // The machine orders no such thing; that it does not is tested with it.
                tracing::error!(%pod, ?step, "a step without an order");
                Ok(())
            }
        }
    }

    /// Waits until a pod is wanted; that can be for ever.
    async fn wanted_again(&self, pod: &PodKey) {
        let mut wishes = self.wishes.clone();
        while !matches!(wishes.want(pod), Want::Yes(_)) {
            if !wishes.changed().await {
                std::future::pending::<()>().await;
            }
        }
    }

    /// Waits until the annotation is taken back and peers know of it, but not for ever; the turn is others' while peers are waited for.
    async fn withdraw(&self, pod: &PodKey, turn: &mut Turn<'_>) {
        let Some(annotator) = &self.annotator else { return };
        if tokio::time::timeout(WITHDRAWAL, annotator.settled(pod)).await.is_ok() {
            // Of a pod that is not there any more nobody has anything to learn.
            if annotator.knows(pod) {
                // Cut short by who wants it back.
                let _ = turn.aside(tokio::time::timeout(FAREWELL, self.wanted_again(pod))).await;
            }
        } else {
            tracing::warn!(
                %pod,
                "the annotation of capture cannot be taken back now, which peers go by; the pod is released all the same, and the \
                 annotation as soon as the Kubernetes API takes it"
            );
        }
    }

    /// Attaches capture, after its record is written.
    async fn attach(&self, pod: &PodKey, work: &mut Enrolment) -> Result<(), EnrollError> {
        self.refuse_guest(&work.location.netns)?;
        if !self.node.is_enrolled(work.record.cookie) {
            let fresh = work.location.netns.try_clone()?;
            blocking(move || other_mesh::refuse(&fresh)).await??;
        }
        self.records.write(&work.record)?;
        let inherited = self.lock_inherited().get(&work.record.cookie).map(Listeners::try_clone).transpose();
        let inherited = inherited.map_err(EnrollError::Inherited)?;
        let netns = work.location.netns.try_clone()?;
        let captured = self.capture(pod, &work.wanted.entry, netns, inherited).await?;
        work.record.sysctls.extend(captured.guard.attachment().changed_sysctls());
        work.captured = Some(captured);
        Ok(self.records.write(&work.record)?)
    }

    /// Puts a proven capture in its place.
    fn keep(&self, pod: &PodKey, work: &mut Enrolment, enrolled: &mut Option<Enrolled>) {
        let Some(Captured { guard, uid, serving }) = work.captured.take() else { return };
        let cookie = work.record.cookie;
        let (took, addresses) = (work.started.elapsed(), guard.attachment().addresses());
        tracing::info!(%pod, cookie, ?addresses, ?took, "pod enrolled, its capture is verified");
        self.metrics.started.inc();
        self.metrics.enrol_time.observe(took.as_secs_f64());
        let (record, wanted) = (work.record.clone(), work.wanted.clone());
        self.counted.set(pod, &guard);
        let new = Enrolled { guard, record, wanted, uid, serving, health: Health::whole() };
        // What served the pod before ends only now, when the new listeners have taken its place.
        if enrolled.replace(new).is_none() {
            self.metrics.active.inc();
        }
        self.lock_lost().remove(pod);
        self.lock_inherited().remove(&cookie);
    }

    /// Puts a pod back as it was before anybody captured it.
    async fn undo(&self, pod: &PodKey, work: &mut Enrolment) -> Result<(), EnrollError> {
        let guard = work.captured.take().map(|captured| captured.guard);
        let (node, sysctls) = (Arc::clone(&self.node), work.record.sysctls.clone());
        let undo = move || match guard {
            Some(guard) => guard.release(&node).and_then(|()| guard.attachment().put_back(&sysctls)),
            None => Ok(()),
        };
        if let Err(error) | Ok(Err(error)) = blocking(undo).await.map(|done| done.map_err(EnrollError::from))
        {
            tracing::warn!(%pod, %error, "a failed enrolment left something behind");
        }
        if let Err(error) = self.records.remove(pod) {
            tracing::warn!(%pod, %error, "a failed enrolment left its record behind");
        }
        Ok(())
    }

    /// Attaches and serves a pod, in the place of an earlier capture of it; with the listeners of that, if there are any.
    pub(super) async fn capture(
        &self,
        pod: &PodKey,
        entry: &control::file::Enrollment,
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

    /// Releases a pod that is not to be in the mesh any more; one that is not enrolled is fine.
    pub(super) async fn release(
        self: &Arc<Self>,
        pod: &PodKey,
        turn: &mut Turn<'_>,
    ) -> Result<(), EnrollError> {
        self.release_if(pod, Some(turn), |_| true).await
    }

    /// Releases a pod whose network namespace is gone: nobody needs to be told first.
    pub(super) async fn release_gone(self: &Arc<Self>, pod: &PodKey) -> Result<(), EnrollError> {
        self.release_if(pod, None, |_| true).await
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
        self.release_if(pod, None, same).await
    }

    /// Releases a pod whose place is locked, and whose sandbox is gone.
    pub(super) async fn release_locked(
        self: &Arc<Self>,
        pod: &PodKey,
        enrolled: &mut Option<Enrolled>,
    ) -> Result<(), EnrollError> {
        self.drive(pod, Event::Release, Work::Release { patience: None }, enrolled).await
    }

    async fn release_if(
        self: &Arc<Self>,
        pod: &PodKey,
        patience: Option<&mut Turn<'_>>,
        condition: impl Fn(&Enrolled) -> bool,
    ) -> Result<(), EnrollError> {
        let mut enrolled = self.lock(pod).await;
        let outcome = match enrolled.as_ref() {
            Some(now) if !condition(now) => Ok(()),
            // What an agent before this one left is not let go of by the way.
            None if self.states.is_held(pod) => Ok(()),
            _ => self.drive(pod, Event::Release, Work::Release { patience }, &mut enrolled).await,
        };
        self.unlock(pod, enrolled);
        outcome
    }

    /// Lets go of a pod that an agent before this one has captured, and that nobody serves.
    pub(super) async fn release_lost(
        self: &Arc<Self>,
        record: &Record,
        netns: Option<Netns>,
        turn: &mut Turn<'_>,
    ) -> Result<(), EnrollError> {
        let pod = &record.pod;
        let mut enrolled = self.lock(pod).await;
        let outcome = if enrolled.is_some() {
            Ok(())
        } else {
            self.states.on(pod, Event::Adopt { cookie: record.cookie });
            let patience = netns.is_some().then_some(turn);
            let work = Work::Forget { record: Box::new(record.clone()), netns, patience };
            self.drive(pod, Event::Release, work, &mut enrolled).await
        };
        self.unlock(pod, enrolled);
        outcome
    }

    /// Ends the capture of a pod that is served.
    async fn let_go(
        self: &Arc<Self>,
        pod: &PodKey,
        enrolled: &mut Option<Enrolled>,
    ) -> Result<(), EnrollError> {
        let Some(now) = enrolled.as_ref() else { return self.forget_lost(pod).await };
        let started = Instant::now();
        let (node, released) = (Arc::clone(&self.node), Arc::clone(&now.guard));
        // First the marking, then the listeners: the other way round, what was just marked would find nobody.
        blocking(move || released.release(&node)).await??;
        let Some(Enrolled { guard, record, uid, serving, .. }) = enrolled.take() else { return Ok(()) };
        drop(serving);
        self.counted.remove(pod);
        self.metrics.active.dec();
        self.metrics.stopped.inc();
        if let Err(error) = self.records.remove(pod) {
            tracing::error!(%pod, %error, "the pod is released, but the next agent will look for it");
        }
        let took = started.elapsed();
        self.metrics.release_time.observe(took.as_secs_f64());
        tracing::info!(%pod, ?took, "pod released");
        tokio::spawn(Arc::clone(self).put_back_at_end(pod.clone(), uid, guard, record));
        Ok(())
    }

    /// Lets go of what an agent before this one has captured of a pod that is now in another network namespace.
    async fn forget_lost(&self, pod: &PodKey) -> Result<(), EnrollError> {
        let record = self.lock_lost().get(pod).cloned();
        match record {
            Some(record) => self.forget(&record, None).await,
            None => Ok(()),
        }
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

    /// Captured connections go on after a release, and need the route by which their packets come back to the agent; so
    /// that goes only when the last of them has ended, and not at all if the pod was enrolled again meanwhile.
    async fn put_back_at_end(self: Arc<Self>, pod: PodKey, uid: Arc<str>, guard: Arc<Guard>, record: Record) {
        const PERIOD: Duration = Duration::from_secs(1);
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
}

impl Enrolment {
    async fn prove(&self) -> Result<(), EnrollError> {
        let Some(captured) = &self.captured else { return Ok(()) };
        let (guard, ips) = (Arc::clone(&captured.guard), self.location.ips.clone());
        blocking(move || verify::verify(guard.attachment(), &ips, verify::AT_ENROLMENT)).await?
    }
}
