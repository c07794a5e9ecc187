//! How many pods are enrolled, pending, failed: the peers' names, and ours beside them.

use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::metrics::histogram::{Histogram, exponential_buckets};
use prometheus_client::registry::{Registry, Unit};

use super::shown::Gauges;

/// What was lost.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Lost {
    /// Name of the part.
    pub(crate) reason: &'static str,
}

/// What came of a repair.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Repaired {
    /// `mended`, `anew`, `failed`.
    pub(crate) outcome: &'static str,
}

/// Counters of enrolment.
#[derive(Clone, Debug)]
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
    /// Pods by state.
    pub(super) pods: Gauges,
    /// Parts of capture that were found lost.
    pub(crate) lost: Family<Lost, Counter>,
    /// What came of repairs.
    pub(crate) repairs: Family<Repaired, Counter>,
    /// Programs of others on the hooks of capture.
    pub(crate) others: Gauge,
    /// Seconds from request to proof.
    pub(crate) enrol_time: Histogram,
    /// Seconds until nothing new is captured.
    pub(crate) release_time: Histogram,
}

/// From half a millisecond to eight seconds.
fn durations() -> Histogram {
    Histogram::new(exponential_buckets(0.0005, 2.0, 15))
}

impl EnrollmentMetrics {
    /// Registers them.
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self {
            active: Gauge::default(),
            pending: Gauge::default(),
            started: Counter::default(),
            stopped: Counter::default(),
            failed: Counter::default(),
            pods: Gauges::default(),
            lost: Family::default(),
            repairs: Family::default(),
            others: Gauge::default(),
            enrol_time: durations(),
            release_time: durations(),
        };
        metrics.register_peers(registry);
        metrics.register_own(registry);
        metrics
    }

    /// Pods by state.
    pub(crate) fn gauges(&self) -> Gauges {
        self.pods.clone()
    }

    /// Under the names that dashboards read.
    fn register_peers(&self, registry: &mut Registry) {
        registry.register(
            "workload_manager_active_proxy_count",
            "The total number current workloads with active proxies (unstable)",
            self.active.clone(),
        );
        registry.register(
            "workload_manager_pending_proxy_count",
            "The total number current workloads with pending proxies (unstable)",
            self.pending.clone(),
        );
        registry.register(
            "workload_manager_proxies_started",
            "The total number of proxies that were started (unstable)",
            self.started.clone(),
        );
        registry.register(
            "workload_manager_proxies_stopped",
            "The total number of proxies that were stopped (unstable)",
            self.stopped.clone(),
        );
    }

    fn register_own(&self, registry: &mut Registry) {
        registry.register(
            "culvert_enrollment_failures",
            "Attempts to enrol a pod that failed, of which the log names the reasons",
            self.failed.clone(),
        );
        registry.register("culvert_pods", "Pods that are to be in the mesh, by state", self.pods.clone());
        registry.register(
            "culvert_capture_foreign_programs",
            "Programs of other software on the hooks that capture uses, see culvert verify",
            self.others.clone(),
        );
        registry.register(
            "culvert_capture_lost",
            "Parts of capture that were found lost, by part",
            self.lost.clone(),
        );
        registry.register(
            "culvert_capture_repairs",
            "Repairs of capture: mended in place, captured anew, failed",
            self.repairs.clone(),
        );
        registry.register_with_unit(
            "culvert_enroll_duration",
            "From the request to enrol a pod to the proof that it is captured",
            Unit::Seconds,
            self.enrol_time.clone(),
        );
        registry.register_with_unit(
            "culvert_release_duration",
            "From the request to release a pod to the end of its capture",
            Unit::Seconds,
            self.release_time.clone(),
        );
    }
}
