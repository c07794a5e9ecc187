//! When a pod that could not be enrolled is tried again: after a wait that doubles, so that a pod that never can costs
//! little and fills no log.
//!
//! A pod that is only just starting has failed at nothing: that its processes are not found yet is told when it lasts, and then once.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::error::EnrollError;
use super::record::PodKey;

const FIRST: Duration = Duration::from_secs(1);
const LONGEST: Duration = Duration::from_secs(60);
/// For how long a pod may be starting before it is told that it is not found.
const START: Duration = Duration::from_secs(30);

/// The pods that failed.
#[derive(Debug, Default)]
pub(super) struct Retries {
    failed: Mutex<HashMap<PodKey, Wait>>,
}

#[derive(Debug)]
struct Wait {
    until: Instant,
    length: Duration,
    /// When it has failed first.
    since: Instant,
    /// Whether it was told that its start lasts.
    is_told: bool,
}

/// How a failure is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Telling {
    /// It is one.
    Error,
    /// The pod's start lasts for longer than a start does.
    Lasting,
    /// For who looks closely.
    Debug,
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
        let (telling, length) = self.note(pod, error.is_of_a_start(), Instant::now());
        let again_in_s = length.as_secs();
        match telling {
            Telling::Error => tracing::error!(%pod, %error, again_in_s, "pod not enrolled"),
            Telling::Lasting => {
                tracing::warn!(%pod, %error, again_in_s, "pod not enrolled, for it is not found; it is looked for further on");
            }
            Telling::Debug => tracing::debug!(%pod, %error, again_in_s, "pod not found yet"),
        }
    }

    /// Notes a failure, and says how it is to be told and when the pod is tried again.
    fn note(&self, pod: &PodKey, is_of_a_start: bool, now: Instant) -> (Telling, Duration) {
        let mut failed = self.lock();
        let new = || Wait { until: now, length: Duration::ZERO, since: now, is_told: false };
        let wait = failed.entry(pod.clone()).or_insert_with(new);
        wait.length = (wait.length * 2).clamp(FIRST, LONGEST);
        wait.until = now + wait.length;
        let telling = match is_of_a_start {
            false => Telling::Error,
            true if wait.is_told || now.duration_since(wait.since) < START => Telling::Debug,
            true => Telling::Lasting,
        };
        wait.is_told |= telling == Telling::Lasting;
        (telling, wait.length)
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

    #[test]
    fn a_start_is_told_once_and_only_if_it_lasts_and_an_error_each_time() {
        let (retries, begun) = (Retries::default(), Instant::now());
        let pod = PodKey { namespace: "n".into(), name: "p".into() };
        let mut now = begun;
        let mut told = Vec::new();
        for _ in 0..9 {
            let (telling, wait) = retries.note(&pod, true, now);
            told.push(((now - begun).as_secs(), telling));
            now += wait;
        }
        let expected = [0, 1, 3, 7, 15].map(|at| (at, Telling::Debug));
        assert_eq!(told[..5], expected);
        assert_eq!(told[5], (31, Telling::Lasting));
        assert!(told[6..].iter().all(|(_, telling)| *telling == Telling::Debug), "{told:?}");
        assert_eq!(retries.note(&pod, false, now).0, Telling::Error);
        assert_eq!(retries.note(&pod, false, now).0, Telling::Error);
        retries.succeeded(&pod);
        assert_eq!(retries.note(&pod, true, now), (Telling::Debug, FIRST));
    }
}
