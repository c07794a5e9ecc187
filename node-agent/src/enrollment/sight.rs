//! What whoever asks is shown of pods and node: looked at just now, not remembered.

use std::sync::Arc;

use redirect::{Line, Part, Problem, Report};

use super::shown::PodState;
use super::{EnrollError, Enroller, PodKey, blocking, verify};

/// A pod as it is.
#[derive(Debug)]
pub(crate) struct PodSight {
    /// Its names.
    pub(crate) pod: PodKey,
    /// Its state.
    pub(crate) state: PodState,
    /// Every part of its capture; nothing of a pod that is not captured.
    pub(crate) report: Report,
}

impl Enroller {
    /// Every pod that is to be in the mesh and is on this node.
    pub(crate) fn states(&self) -> Vec<(PodKey, PodState)> {
        self.states.all()
    }

    /// The node's half of capture.
    pub(crate) async fn see_node(&self) -> Report {
        self.look_at_node().await
    }

    /// Inspects one pod, and makes connections in it.
    pub(crate) async fn see(&self, pod: PodKey, state: PodState) -> PodSight {
        let enrolled = self.lock(&pod).await;
        let guard = enrolled.as_ref().map(|enrolled| Arc::clone(&enrolled.guard));
        self.unlock(&pod, enrolled);
        let Some(guard) = guard else { return PodSight { pod, state, report: Report::default() } };
        let mut report = self.look_closely(&guard).await;
        let connections = blocking(move || {
            let attachment = guard.attachment();
            let knock = |to| {
                let family = if std::net::SocketAddr::is_ipv6(&to) { "IPv6" } else { "IPv4" };
                let found = verify::attempt(attachment, to, verify::IN_LIFE).map_err(|reason| {
                    Problem::new(
                        reason,
                        "the lines above tell why; if they are all well, see the agent's log",
                    )
                });
                Line::new(Part::Connection, format!("connection to the agent, {family}"), found)
            };
            verify::destinations(attachment).into_iter().map(knock).collect::<Vec<_>>()
        });
        report.lines.extend(connections.await.unwrap_or_default());
        PodSight { pod, state, report }
    }

    /// Whether the capture of an enrolled pod is whole; `None` where the pod is not enrolled.
    pub(crate) async fn inspect(&self, pod: &PodKey) -> Option<Result<(), EnrollError>> {
        let enrolled = self.lock(pod).await;
        let guard = enrolled.as_ref().map(|enrolled| Arc::clone(&enrolled.guard));
        self.unlock(pod, enrolled);
        let report = self.look_closely(&guard?).await;
        if report.is_whole() {
            return Some(Ok(()));
        }
        Some(Err(redirect::CaptureError::NotCaptured(report.problems()).into()))
    }
}
