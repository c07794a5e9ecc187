//! What is counted of the installation.

use std::sync::atomic::AtomicU64;

use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::gauge::Gauge;
use prometheus_client::registry::Registry;

/// Counters of the installation.
#[derive(Clone, Debug, Default)]
pub(crate) struct InstallMetrics {
    /// 1 while the plugin is where the runtime calls it.
    pub(crate) installed: Gauge,
    /// Times that it was put back after somebody had taken it out.
    pub(crate) repairs: Counter<u64, AtomicU64>,
    /// Attempts that failed.
    pub(crate) failures: Counter<u64, AtomicU64>,
}

impl InstallMetrics {
    /// Registers them.
    pub(crate) fn register(registry: &mut Registry) -> Self {
        let metrics = Self::default();
        registry.register(
            "culvert_cni_installed",
            "Whether the CNI plugin is where the container runtime calls it",
            metrics.installed.clone(),
        );
        registry.register(
            "culvert_cni_repairs",
            "Times that the plugin was put back into the network configuration after somebody had taken it out",
            metrics.repairs.clone(),
        );
        registry.register(
            "culvert_cni_install_failures",
            "Attempts to install the CNI plugin that failed",
            metrics.failures.clone(),
        );
        metrics
    }
}
