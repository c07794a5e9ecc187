//! Releases what a container runtime says is not in use any more: the plugin's GC.
//!
//! A runtime speaks of its own network only, and of the sandboxes that it has named itself: pods of another network, and
//! those that came another way, are left alone. It calls while no pod is being added or removed (CNI specification 1.1,
//! section "Lifecycle & Ordering"), so that a sandbox it does not name is unused and not yet to come.

use std::collections::HashSet;
use std::sync::Arc;

use super::{EnrollError, Enrolled, Enroller, PodKey};

impl Enroller {
    /// Releases the pods of `network` whose sandboxes are not among `valid`. All are tried; the last error is returned.
    pub(crate) async fn collect(
        self: &Arc<Self>,
        network: &str,
        valid: &HashSet<String>,
    ) -> Result<(), (PodKey, EnrollError)> {
        let is_unused = |enrolled: &Enrolled| {
            let id = enrolled.record.container_id.as_ref();
            enrolled.record.network == network && id.is_some_and(|id| !valid.contains(id))
        };
        let mut outcome = Ok(());
        for pod in self.enrolled_pods() {
            let mut enrolled = self.lock(&pod).await;
            if enrolled.as_ref().is_some_and(is_unused) {
                tracing::info!(%pod, network, "the runtime does not know the pod's sandbox any more");
                if let Err(error) = self.release_locked(&pod, &mut enrolled).await {
                    outcome = Err((pod.clone(), error));
                }
            }
            self.unlock(&pod, enrolled);
        }
        outcome
    }
}
