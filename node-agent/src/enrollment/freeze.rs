//! A pause in which nothing of this node's capture changes, so that another agent can take it over as it is.

use std::io;
use std::sync::Arc;

use tokio::sync::OwnedRwLockWriteGuard;

use super::Enroller;
use crate::handover::Named;

/// Nothing is enrolled, released or mended as long as this lives; connections go on being served.
pub(crate) struct Frozen {
    enroller: Arc<Enroller>,
    changes: OwnedRwLockWriteGuard<()>,
}

impl Enroller {
    /// Waits for what is under way, and holds everything else back.
    pub(crate) async fn freeze(self: &Arc<Self>) -> Frozen {
        let changes = Arc::clone(&self.changes).write_owned().await;
        self.node.step_back();
        Frozen { enroller: Arc::clone(self), changes }
    }

    /// Goes on after a pause in which another agent was to take over, and did not.
    pub(crate) fn go_on(&self) {
        if let Err(error) = self.node.dismiss() {
            tracing::warn!(%error, "the agent that was to take over is still known to the connect programs");
        }
    }
}

impl Frozen {
    /// Descriptors of the listening sockets of every enrolled pod, by the cookie of its namespace.
    pub(crate) async fn sockets(&self) -> io::Result<Vec<(u64, Vec<Named>)>> {
        let mut sockets = Vec::new();
        for pod in self.enroller.enrolled_pods() {
            let enrolled = self.enroller.lock(&pod).await;
            if let Some(now) = enrolled.as_ref() {
                let shared = now.guard.share_listeners()?;
                let named = shared.into_iter().map(|(role, socket)| (role.as_str().to_owned(), socket));
                sockets.push((now.guard.attachment().cookie(), named.collect()));
            }
            self.enroller.unlock(&pod, enrolled);
        }
        Ok(sockets)
    }

    /// Lets go of every pod without releasing it: what is captured from now on is another agent's, and what was accepted here
    /// is served to its end. Nothing is changed here any more.
    pub(crate) async fn surrender(self) {
        for pod in self.enroller.enrolled_pods() {
            let mut enrolled = self.enroller.lock(&pod).await;
            drop(enrolled.take());
            self.enroller.unlock(&pod, enrolled);
        }
        self.enroller.lock_lost().clear();
        if let Some(annotator) = &self.enroller.annotator {
            annotator.stop();
        }
        // For good: whoever waits to change something waits until the process ends.
        std::mem::forget(self.changes);
    }
}
