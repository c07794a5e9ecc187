//! The end of the mesh on this node: every pod is let go of, as if nobody wanted it any more.
//!
//! Whoever else would change something is held back, for good. What fails of a pod is logged, and the others are let go of all the same;
//! what is left then is in the records, for `culvert detach`. Routes stay for the connections that are open, until they are put back.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;
use redirect::Guard;
use tokio::time::timeout;

use super::presence::{self, Presence};
use super::turn::Turn;
use super::{Enroller, PodKey, Record, blocking};

/// How long what is under way (an enrolment, a repair) may take to end.
const QUIET: Duration = Duration::from_secs(30);
/// How long the annotations that a release did not wait for may take.
const SETTLED: Duration = Duration::from_secs(20);

/// Pods that were let go of, whose routes are still there.
pub(crate) struct Left(Vec<(PodKey, Arc<Guard>, Vec<String>)>);

impl Enroller {
    /// Releases every pod that is captured, all at once: each waits for its annotation to be taken back, for as long as a release
    /// does, and those that were not taken back by then are waited for together.
    pub(crate) async fn leave(self: &Arc<Self>) -> Left {
        match timeout(QUIET, Arc::clone(&self.changes).write_owned()).await {
            // Whoever waits to change something waits until the process ends.
            Ok(changes) => std::mem::forget(changes),
            Err(_) => {
                tracing::warn!("what is under way does not come to an end; pods are let go of all the same")
            }
        }
        let mut left = Vec::new();
        for pod in self.enrolled_pods() {
            let enrolled = self.lock(&pod).await;
            left.extend(
                enrolled
                    .as_ref()
                    .map(|now| (pod.clone(), Arc::clone(&now.guard), now.record.sysctls.clone())),
            );
            self.unlock(&pod, enrolled);
        }
        let lost: Vec<Record> = self.lock_lost().values().cloned().collect();
        let pods: Vec<PodKey> =
            left.iter().map(|(pod, ..)| pod).chain(lost.iter().map(|lost| &lost.pod)).cloned().collect();
        join_all(left.iter().map(async |(pod, ..)| {
            if let Err(error) = self.release(pod, &mut Turn::free()).await {
                tracing::warn!(%pod, %error, "not released");
            }
        }))
        .await;
        join_all(lost.iter().map(async |record| {
            if let Err(error) = self.leave_lost(record).await {
                tracing::warn!(pod = %record.pod, %error, "not released");
            }
        }))
        .await;
        self.settle(&pods).await;
        Left(left)
    }

    async fn leave_lost(self: &Arc<Self>, record: &Record) -> Result<(), super::EnrollError> {
        let (path, cookie) = (record.netns.clone(), record.cookie);
        let netns = match blocking(move || presence::look(&path, cookie)).await? {
            Presence::There(netns) => Some(netns),
            Presence::Gone | Presence::Another(_) => None,
            Presence::Unknown(error) => return Err(error.into()),
        };
        self.release_lost(record, netns, &mut Turn::free()).await
    }

    async fn settle(&self, pods: &[PodKey]) {
        let Some(annotator) = &self.annotator else { return };
        let settled = join_all(pods.iter().map(|pod| annotator.settled(pod)));
        if timeout(SETTLED, settled).await.is_err() {
            tracing::warn!(
                "not every annotation of capture could be taken back, and peers go by them: take ambient.istio.io/redirection off the \
                 pods of this node, or start those again"
            );
        }
    }
}

impl Left {
    /// Removes the pods' routes and settings; to be called when their connections have ended, or are to end with the process.
    pub(crate) async fn put_back(self) {
        for (pod, guard, sysctls) in self.0 {
            match blocking(move || guard.attachment().put_back(&sysctls)).await {
                Ok(Ok(())) => {}
                Ok(Err(error)) => tracing::warn!(%pod, %error, "routes not removed"),
                Err(error) => tracing::warn!(%pod, %error, "routes not removed"),
            }
        }
    }
}
