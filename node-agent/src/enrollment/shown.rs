//! How each pod is that is to be in the mesh, as it is shown: to the gauge, and to whoever asks.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;

use super::record::PodKey;

/// A pod's state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum PodState {
    /// Not enrolled yet, and why.
    Pending(String),
    /// Captured, and that is proven.
    Enrolled,
    /// Enrolled, but something of its capture is lost: what.
    Degraded(String),
}

impl PodState {
    /// Its name in metrics and output.
    pub(crate) const fn as_str(&self) -> &'static str {
        match self {
            Self::Pending(_) => "pending",
            Self::Enrolled => "enrolled",
            Self::Degraded(_) => "degraded",
        }
    }

    /// What is the matter, if something is.
    pub(crate) fn why(&self) -> Option<&str> {
        match self {
            Self::Pending(why) | Self::Degraded(why) => Some(why),
            Self::Enrolled => None,
        }
    }
}

/// Label of the gauge.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct StateLabel {
    state: &'static str,
}

impl StateLabel {
    /// Of the state with this name.
    #[cfg(test)]
    pub(super) const fn of(state: &'static str) -> Self {
        Self { state }
    }
}

/// Pods by state.
pub(crate) type Gauges = Family<StateLabel, Gauge>;

/// All pods' shown. The gauge follows them.
#[derive(Debug)]
pub(crate) struct Shown {
    table: Mutex<BTreeMap<PodKey, PodState>>,
    gauges: Gauges,
}

impl Shown {
    pub(crate) fn new(gauges: Gauges) -> Self {
        for state in ["enrolled", "degraded", "pending"] {
            gauges.get_or_create(&StateLabel { state }).set(0);
        }
        Self { table: Mutex::default(), gauges }
    }

    /// Replaces a pod's state.
    pub(crate) fn set(&self, pod: &PodKey, state: PodState) {
        self.gauge(&state).inc();
        if let Some(before) = self.lock().insert(pod.clone(), state) {
            self.gauge(&before).dec();
        }
    }

    /// Forgets a pod.
    pub(crate) fn remove(&self, pod: &PodKey) {
        if let Some(before) = self.lock().remove(pod) {
            self.gauge(&before).dec();
        }
    }

    /// Every pod's state, by name.
    pub(crate) fn all(&self) -> Vec<(PodKey, PodState)> {
        self.lock().iter().map(|(pod, state)| (pod.clone(), state.clone())).collect()
    }

    fn gauge(&self, state: &PodState) -> impl std::ops::Deref<Target = Gauge> {
        self.gauges.get_or_create(&StateLabel { state: state.as_str() })
    }

    fn lock(&self) -> MutexGuard<'_, BTreeMap<PodKey, PodState>> {
        self.table.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_gauge_follows_the_table() {
        let gauges = Gauges::default();
        let shown = Shown::new(gauges.clone());
        let count = |state| gauges.get_or_create(&StateLabel { state }).get();
        let pod = |name: &str| PodKey { namespace: "n".into(), name: name.into() };
        shown.set(&pod("a"), PodState::Pending("why".into()));
        shown.set(&pod("b"), PodState::Pending("why".into()));
        shown.set(&pod("a"), PodState::Enrolled);
        shown.set(&pod("a"), PodState::Degraded("what".into()));
        assert_eq!((count("enrolled"), count("degraded"), count("pending")), (0, 1, 1));
        shown.remove(&pod("b"));
        shown.remove(&pod("a"));
        shown.remove(&pod("a"));
        assert_eq!((count("enrolled"), count("degraded"), count("pending")), (0, 0, 0));
        assert!(shown.all().is_empty());
    }
}
