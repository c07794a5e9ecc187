//! What the eBPF programs decided, as metrics: a counter for each pod and decision.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;

use redirect::Guard;

use super::{Enroller, PodKey};

/// Reads the counters of all enrolled pods when metrics are asked for.
pub(crate) struct Decisions(pub(crate) Arc<Enroller>);

#[derive(Clone, Debug, EncodeLabelSet)]
struct Labels {
    namespace: String,
    pod: String,
    decision: &'static str,
}

/// Whose decisions are counted, by what captures them. It stands beside the pods' places, which may be held for long:
/// asking for metrics waits for nobody, and a counter that is there stays there.
#[derive(Debug, Default)]
pub(super) struct Counted(Mutex<HashMap<PodKey, Arc<Guard>>>);

impl Counted {
    /// A pod is captured by this, and by nothing else any more.
    pub(super) fn set(&self, pod: &PodKey, guard: &Arc<Guard>) {
        self.lock().insert(pod.clone(), Arc::clone(guard));
    }

    /// A pod is released.
    pub(super) fn remove(&self, pod: &PodKey) {
        self.lock().remove(pod);
    }

    /// The enrolled pod in the namespace with this cookie.
    pub(super) fn pod_with_cookie(&self, cookie: u64) -> Option<PodKey> {
        let counted = self.lock();
        let found = counted.iter().find(|(_, guard)| guard.attachment().cookie() == cookie);
        found.map(|(pod, _)| pod.clone())
    }

    fn all(&self) -> Vec<(PodKey, Arc<Guard>)> {
        self.lock().iter().map(|(pod, guard)| (pod.clone(), Arc::clone(guard))).collect()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<PodKey, Arc<Guard>>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Enroller {
    /// What capture decided for each enrolled pod, and how often.
    fn decisions(&self) -> Vec<(PodKey, &'static str, u64)> {
        let mut counts = Vec::new();
        for (pod, guard) in self.counted.all() {
            let attachment = guard.attachment();
            let decided = self.node.decisions(attachment.cookie()).map(|(what, count)| (what.name(), count));
            let steered = attachment.steered().map(|(what, count)| (what.name(), count));
            let guarded = attachment.guarded().map(|(what, count)| (what.name(), count));
            counts.extend(
                decided.chain(steered).chain(guarded).map(|(name, count)| (pod.clone(), name, count)),
            );
        }
        counts
    }
}

impl fmt::Debug for Decisions {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Decisions")
    }
}

impl Collector for Decisions {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let mut family = encoder.encode_descriptor(
            "culvert_capture_decisions",
            "What capture decided on connections and DNS queries of a pod",
            None,
            MetricType::Counter,
        )?;
        for (pod, decision, count) in self.0.decisions() {
            let PodKey { namespace, name } = pod;
            let labels = Labels { namespace, pod: name, decision };
            ConstCounter::new(count).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}
