//! When a pod that could not be enrolled is tried again: after a wait that doubles, so that a pod that never can costs
//! little and fills no log.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::error::EnrollError;
use super::record::PodKey;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);

/// The pods that failed.
#[derive(Debug, Default)]
pub(super) struct Retries {
    failed: Mutex<HashMap<PodKey, Wait>>,
}

#[derive(Debug)]
struct Wait {
    until: Instant,
    length: Duration,
}

impl Retries {
    /// Whether the pod may be tried now.
    pub(super) fn is_due(&self, pod: &PodKey) -> bool {
        self.lock().get(pod).is_none_or(|wait| wait.until <= Instant::now())
    }

    /// The pod is enrolled.
    pub(super) fn succeeded(&self, pod: &PodKey) {
        self.lock().remove(pod);
    }

    /// The pod is not enrolled.
    pub(super) fn failed(&self, pod: &PodKey, error: &EnrollError) {
        let mut failed = self.lock();
        let length = failed.get(pod).map_or(FIRST, |wait| (wait.length * 2).min(LONGEST));
        tracing::error!(%pod, %error, again_in_s = length.as_secs(), "pod not enrolled");
        failed.insert(pod.clone(), Wait { until: Instant::now() + length, length });
    }

    /// Forgets the pods of which `keep` does not say so.
    pub(super) fn retain(&self, keep: impl Fn(&PodKey) -> bool) {
        self.lock().retain(|pod, _| keep(pod));
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PodKey, Wait>> {
        self.failed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failure_waits_and_a_change_does_not() {
        let retries = Retries::default();
        let pod = PodKey { namespace: "n".into(), name: "p".into() };
        assert!(retries.is_due(&pod));
        retries.failed(&pod, &EnrollError::NoLocation);
        assert!(!retries.is_due(&pod));
        retries.failed(&pod, &EnrollError::NoLocation);
        assert_eq!(retries.lock()[&pod].length, FIRST * 2);
        retries.retain(|_| true);
        assert!(!retries.is_due(&pod));
        retries.retain(|_| false);
        assert!(retries.is_due(&pod));
    }
}
