//! Metrics of the process itself: descriptors, memory, processor time, build, lost log lines, the mesh file's fate.
//!
//! What the kernel does not tell is left out of a scrape; nothing else is lost with it.

mod runtimes;
#[cfg(test)]
mod tests;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use control::file::FileCounters;
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::registry::Registry;

pub(crate) use self::runtimes::register_runtimes;
use crate::logging::Lost;

/// What the build was; the component's name is the one that dashboards select.
#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Build {
    component: &'static str,
    tag: &'static str,
}

/// Registers what the process knows of itself; `dropped` counts lost log lines.
pub(crate) fn register_process(registry: &mut Registry, dropped: Lost) {
    let build = Family::<Build, Gauge>::default();
    build.get_or_create(&Build { component: "ztunnel", tag: env!("CARGO_PKG_VERSION") }).set(1);
    registry.register("istio_build", "Istio component build info", build);
    registry.register_collector(Box::new(Process { dropped, started: linux::usage::started().ok() }));
}

/// Registers what became of the versions of the mesh file.
pub(crate) fn register_file(registry: &mut Registry, counters: Arc<FileCounters>) {
    registry.register_collector(Box::new(MeshFile { counters }));
}

#[derive(Debug)]
struct Process {
    dropped: Lost,
    /// Looked up once: it does not change, and on a large machine it is a long file that tells it.
    started: Option<SystemTime>,
}

impl Collector for Process {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let open = std::fs::read_dir("/proc/self/fd").map_or(0, Iterator::count);
        gauge(&mut encoder, "process_open_fds", "Number of open file descriptors", open)?;
        if let Some(limit) = descriptor_limit() {
            gauge(&mut encoder, "process_max_fds", "Maximum number of file descriptors", limit)?;
        }
        if let Ok(resident) = linux::usage::resident_memory() {
            let resident = usize::try_from(resident).unwrap_or(usize::MAX);
            gauge(&mut encoder, "process_resident_memory_bytes", "Resident memory size in bytes", resident)?;
        }
        if let Ok(spent) = linux::usage::processor_time() {
            let metric = ConstCounter::new(spent.as_secs_f64());
            let help = "Total user and system CPU time spent in seconds";
            let kind = metric.metric_type();
            metric.encode(encoder.encode_descriptor("process_cpu_seconds", help, None, kind)?)?;
        }
        if let Some(since) = self.started.and_then(|started| started.duration_since(UNIX_EPOCH).ok()) {
            start_time(&mut encoder, since)?;
        }
        let dropped = self.dropped.count();
        counter(
            &mut encoder,
            "culvert_log_lines_dropped",
            "Log lines lost because stdout was too slow or could not be written to",
            dropped,
        )
    }
}

#[derive(Debug)]
struct MeshFile {
    counters: Arc<FileCounters>,
}

impl Collector for MeshFile {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), fmt::Error> {
        let read = |value: &AtomicU64| value.load(Ordering::Relaxed);
        let (applied, rejected) = (read(&self.counters.applied), read(&self.counters.rejected));
        counter(
            &mut encoder,
            "culvert_mesh_file_applied",
            "Versions of the mesh file that were taken",
            applied,
        )?;
        counter(
            &mut encoder,
            "culvert_mesh_file_rejected",
            "Versions of the mesh file that were wrong",
            rejected,
        )
    }
}

fn gauge(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: usize,
) -> Result<(), fmt::Error> {
    let metric = ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX));
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}

fn counter(
    encoder: &mut DescriptorEncoder<'_>,
    name: &str,
    help: &str,
    value: u64,
) -> Result<(), fmt::Error> {
    let metric = ConstCounter::new(value);
    metric.encode(encoder.encode_descriptor(name, help, None, metric.metric_type())?)
}

fn start_time(encoder: &mut DescriptorEncoder<'_>, since: Duration) -> Result<(), fmt::Error> {
    let metric = ConstGauge::new(since.as_secs_f64());
    let help = "Start time of the process since unix epoch in seconds";
    metric.encode(encoder.encode_descriptor(
        "process_start_time_seconds",
        help,
        None,
        metric.metric_type(),
    )?)
}

/// The soft limit of open files, as the kernel shows it.
fn descriptor_limit() -> Option<usize> {
    let limits = std::fs::read_to_string("/proc/self/limits").ok()?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files"))?;
    line.split_whitespace().next()?.parse().ok()
}
