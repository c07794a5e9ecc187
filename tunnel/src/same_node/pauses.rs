//! With which pods direct connections did not come about lately, so that it is not tried for each connection.
//!
//! Kept by the pod that dials: what one pod's network does to its connections says nothing about the others'.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// How long a pod is reached by HBONE alone after a direct connection to it has failed.
const PAUSE: Duration = Duration::from_secs(30);
/// Pods that are remembered; a node has fewer.
const MOST: usize = 1024;

/// The pods that are not to be tried now, by the number of their start.
#[derive(Debug, Default)]
pub(crate) struct Pauses {
    until: Mutex<HashMap<u64, Instant>>,
}

impl Pauses {
    /// Whether a pod is not to be tried at `now`.
    pub(super) fn holds(&self, pod: u64, now: Instant) -> bool {
        self.until().get(&pod).is_some_and(|until| *until > now)
    }

    /// Notes that a direct connection to a pod failed at `now`.
    pub(super) fn begin(&self, pod: u64, now: Instant) {
        let mut until = self.until();
        until.retain(|_, until| *until > now);
        if until.len() < MOST {
            until.insert(pod, now + PAUSE);
        }
    }

    fn until(&self) -> MutexGuard<'_, HashMap<u64, Instant>> {
        self.until.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_for_one_pod_and_ends() {
        let (pauses, now) = (Pauses::default(), Instant::now());
        pauses.begin(1, now);
        assert!(pauses.holds(1, now) && !pauses.holds(2, now));
        let later = now + PAUSE;
        assert!(!pauses.holds(1, later));
        pauses.begin(2, later);
        assert_eq!(pauses.until().len(), 1);
    }

    #[test]
    fn what_is_remembered_has_a_bound() {
        let (pauses, now) = (Pauses::default(), Instant::now());
        (0..2 * MOST as u64).for_each(|pod| pauses.begin(pod, now));
        assert_eq!(pauses.until().len(), MOST);
    }
}
