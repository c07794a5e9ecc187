//! How the conversation with the API goes.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;

/// What could not be followed.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Failed {
    /// `pods` or `namespaces`.
    pub(super) what: &'static str,
}

/// What came of writing an annotation.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(super) struct Wrote {
    /// `done`, `failed` or `gone`.
    pub(super) outcome: &'static str,
}

/// Counters.
#[derive(Clone, Debug)]
pub(super) struct KubernetesMetrics {
    /// Lists and watches that failed.
    pub(super) failures: Family<Failed, Counter>,
    /// Annotations that were written.
    pub(super) annotations: Family<Wrote, Counter>,
}

impl KubernetesMetrics {
    pub(super) fn register(registry: &mut Registry) -> Self {
        let metrics = Self { failures: Family::default(), annotations: Family::default() };
        registry.register(
            "culvert_kubernetes_watch_failures",
            "Lists and watches of the Kubernetes API that failed and are tried again, by kind",
            metrics.failures.clone(),
        );
        registry.register(
            "culvert_kubernetes_annotations",
            "Writes of the annotation that says that a pod is captured, by outcome",
            metrics.annotations.clone(),
        );
        metrics
    }
}
