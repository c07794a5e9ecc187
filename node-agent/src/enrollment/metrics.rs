//! How many pods are enrolled, pending, failed: the peers' names, and ours beside them.

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Counters of enrolment.
#[derive(Clone, Debug, Default)]
pub(crate) struct EnrollmentMetrics {
    /// Pods that are enrolled.
    pub(crate) active: Gauge,
    /// Pods that are being enrolled.
    pub(crate) pending: Gauge,
    /// Enrolments since the start.
    pub(crate) started: Counter,
    /// Releases since the start.
    pub(crate) stopped: Counter,
    /// Attempts that failed.
    pub(crate) failed: Counter,
}

impl EnrollmentMetrics {
    /// Registers them.
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "workload_manager_active_proxy_count",
            "The total number current workloads with active proxies (unstable)",
            metrics.active.clone(),
        );
        registry.register(
            "workload_manager_pending_proxy_count",
            "The total number current workloads with pending proxies (unstable)",
            metrics.pending.clone(),
        );
        registry.register(
            "workload_manager_proxies_started",
            "The total number of proxies that were started (unstable)",
            metrics.started.clone(),
        );
        registry.register(
            "workload_manager_proxies_stopped",
            "The total number of proxies that were stopped (unstable)",
            metrics.stopped.clone(),
        );
        registry.register(
            "culvert_enrollment_failures",
            "Attempts to enrol a pod that failed, of which the log names the reasons",
            metrics.failed.clone(),
        );
        metrics
    }
}
