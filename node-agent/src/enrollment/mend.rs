//! The mending of one pod's capture: in place where that is enough, else by capturing it anew; proven by a connection.
//!
//! The pod stays as captured as it is meanwhile. What cannot be mended is tried again after a wait that doubles, and is
//! told by log, metrics and state until then.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::{Duration, Instant};

use redirect::{CaptureError, Guard, Line, Part, Problem, Repair, Report};

use super::machine::Event;
use super::metrics::{Lost, Repaired};
use super::{Captured, EnrollError, Enrolled, Enroller, Health, PodKey, blocking, verify};

const LONGEST: Duration = Duration::from_secs(60);

/// How a pod was mended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum How {
    InPlace,
    Anew,
}

impl How {
    const fn as_str(self) -> &'static str {
        match self {
            Self::InPlace => "mended",
            Self::Anew => "anew",
        }
    }
}

impl Enroller {
    /// Looks again at a pod with which something seemed wrong, and mends it; `unproven` is a capture of which a connection
    /// has just not arrived, and why.
    pub(super) async fn mend(self: Arc<Self>, pod: &PodKey, unproven: Option<(Arc<Guard>, String)>) {
        let mut enrolled = self.lock(pod).await;
        if let Some(now) = enrolled.as_mut() {
            let mut report = self.look_closely(&now.guard).await;
            if let Some((_, reason)) = unproven.filter(|(guard, _)| Arc::ptr_eq(guard, &now.guard)) {
                report.lines.push(Line::new(Part::Connection, "connection", Err(Problem::new(reason, ""))));
            }
            if !report.is_whole() || !now.health.lost.is_empty() {
                self.note_lost(pod, now, &report);
                self.mend_locked(pod, now, &report).await;
            }
        }
        self.unlock(pod, enrolled);
    }

    /// Counts and tells what is newly lost.
    fn note_lost(&self, pod: &PodKey, now: &mut Enrolled, report: &Report) {
        let lost: BTreeSet<Part> = report.lost().into_iter().collect();
        let news: Vec<Part> = lost.difference(&now.health.lost).copied().collect();
        for part in &news {
            self.metrics.lost.get_or_create(&Lost { reason: part.as_str() }).inc();
        }
        if !lost.is_empty() {
            now.health.lost = lost;
        }
        if !news.is_empty() {
            tracing::warn!(%pod, lost = report.problems(), "capture lost");
            self.states.on_because(pod, Event::Lost, report.problems());
        }
    }

    async fn mend_locked(&self, pod: &PodKey, now: &mut Enrolled, report: &Report) {
        let started = Instant::now();
        let outcome = self.repair(pod, now, report).await;
        let health = &mut now.health;
        let label = match outcome {
            Ok(how) => {
                let lost: Vec<&str> = health.lost.iter().map(|part| part.as_str()).collect();
                let took = started.elapsed();
                tracing::warn!(%pod, ?lost, how = how.as_str(), ?took, "capture mended, and proven by a connection");
                *health = Health::whole();
                self.states.on(pod, Event::Mended);
                how.as_str()
            }
            Err(error) => {
                let wait = (Duration::from_secs(1) * 2u32.pow(health.attempts.min(6))).min(LONGEST);
                tracing::error!(%pod, %error, again_in_s = wait.as_secs(), "capture not mended");
                health.attempts += 1;
                health.retry_at = Instant::now() + wait;
                self.states.on_because(pod, Event::Lost, error.to_string());
                "failed"
            }
        };
        self.metrics.repairs.get_or_create(&Repaired { outcome: label }).inc();
    }

    async fn repair(&self, pod: &PodKey, now: &mut Enrolled, report: &Report) -> Result<How, EnrollError> {
        let (node, guard, found) = (Arc::clone(&self.node), Arc::clone(&now.guard), report.clone());
        let repaired = blocking(move || guard.repair(&node, &found)).await?;
        let after = self.look_closely(&now.guard).await;
        if is_beyond_us(&after) {
            return Err(CaptureError::NotCaptured(after.problems()).into());
        }
        if after.is_whole() && matches!(repaired, Ok(Repair::Done)) {
            match self.prove(&now.guard).await {
                Ok(()) => return Ok(How::InPlace),
                // Capturing anew has not helped before.
                Err(error) if now.health.attempts > 0 => return Err(error),
                Err(error) => tracing::warn!(%pod, %error, "not mended in place, the pod is captured anew"),
            }
        }
        self.capture_anew(pod, now).await?;
        let after = self.look_closely(&now.guard).await;
        if !after.is_whole() {
            return Err(CaptureError::NotCaptured(after.problems()).into());
        }
        self.prove(&now.guard).await?;
        Ok(How::Anew)
    }

    /// Captures a pod beside what is there of its capture, and takes its place.
    async fn capture_anew(&self, pod: &PodKey, now: &mut Enrolled) -> Result<(), EnrollError> {
        let netns = now.guard.attachment().netns().try_clone()?;
        let Captured { guard, uid, serving } = self.capture(pod, &now.wanted.entry, netns, None).await?;
        let changed = guard.attachment().changed_sysctls();
        let known = std::mem::take(&mut now.record.sysctls);
        now.record.sysctls =
            known.iter().chain(changed.iter().filter(|c| !known.contains(c))).cloned().collect();
        self.counted.set(pod, &guard);
        // What served the pod before ends with this.
        (now.guard, now.uid, now.serving) = (guard, uid, serving);
        Ok(self.records.write(&now.record)?)
    }

    async fn prove(&self, guard: &Arc<Guard>) -> Result<(), EnrollError> {
        let guard = Arc::clone(guard);
        blocking(move || verify::verify(guard.attachment(), &[], verify::IN_LIFE)).await?
    }
}

/// Whether something is wrong that neither a repair nor a new capture changes: somebody else's rules, routes, settings,
/// programs.
fn is_beyond_us(report: &Report) -> bool {
    let lost = report.lost();
    let is_shared = |part: &Part| {
        matches!(
            part,
            Part::Rule
                | Part::Route
                | Part::Sysctl
                | Part::Loopback
                | Part::Others
                | Part::Installation
                | Part::Guest
                | Part::Egress
        )
    };
    !lost.is_empty() && lost.iter().all(is_shared)
}
