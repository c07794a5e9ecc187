//! What the eBPF programs decided, as metrics: a counter for each pod and decision.

use std::fmt;
use std::sync::Arc;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;

use super::{Enroller, PodKey, Slot};

/// Reads the counters of all enrolled pods when metrics are asked for.
pub(crate) struct Decisions(pub(crate) Arc<Enroller>);

#[derive(Clone, Debug, EncodeLabelSet)]
struct Labels {
    namespace: String,
    pod: String,
    decision: &'static str,
}

impl Enroller {
    /// The enrolled pod in the namespace with this cookie, unless it is just being enrolled or released.
    pub(super) fn pod_with_cookie(&self, cookie: u64) -> Option<PodKey> {
        let has = |slot: &Slot| {
            slot.try_lock().is_ok_and(|e| e.as_ref().is_some_and(|e| e.guard.attachment().cookie() == cookie))
        };
        self.lock_pods().iter().find(|(_, slot)| has(slot)).map(|(pod, _)| pod.clone())
    }

    /// What capture decided for each enrolled pod, and how often. A pod that is just being enrolled or released is left
    /// out: asking for metrics waits for nobody.
    fn decisions(&self) -> Vec<(PodKey, &'static str, u64)> {
        let pods: Vec<(PodKey, Slot)> =
            self.lock_pods().iter().map(|(pod, slot)| (pod.clone(), Arc::clone(slot))).collect();
        let mut counts = Vec::new();
        for (pod, slot) in pods {
            let Ok(enrolled) = slot.try_lock() else { continue };
            let Some(enrolled) = enrolled.as_ref() else { continue };
            let attachment = enrolled.guard.attachment();
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
