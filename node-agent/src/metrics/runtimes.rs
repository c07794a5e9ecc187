//! How busy the threads are: the data path's, one runtime each, then those of everything else.
//!
//! Names, labels and help are those that dashboards of the field read. Workers are numbered through all runtimes, those of
//! the data path first: whatever comes, then crowds.

use std::fmt;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::counter::ConstCounter;
use prometheus_client::registry::{Registry, Unit};
use tokio::runtime::{Handle, RuntimeMetrics};

use super::gauge;

/// Registers the metrics of runtimes.
pub(crate) fn register_runtimes(registry: &mut Registry, runtimes: &[Handle]) {
    registry.register_collector(Box::new(Runtimes(runtimes.iter().map(Handle::metrics).collect())));
}

#[derive(Debug)]
struct Runtimes(Vec<RuntimeMetrics>);

impl Runtimes {
    fn sum(&self, of: impl Fn(&RuntimeMetrics) -> usize) -> usize {
        self.0.iter().map(of).sum()
    }

    /// Writes a counter with one value a worker.
    fn counters<T>(
        &self,
        encoder: &mut DescriptorEncoder<'_>,
        (name, help, unit): (&str, &str, Option<&Unit>),
        of: impl Fn(&RuntimeMetrics, usize) -> T,
    ) -> fmt::Result
    where
        ConstCounter<T>: EncodeMetric,
    {
        let mut family = encoder.encode_descriptor(name, help, unit, MetricType::Counter)?;
        let workers =
            self.0.iter().flat_map(|runtime| (0..runtime.num_workers()).map(move |own| (runtime, own)));
        for (number, (runtime, own)) in workers.enumerate() {
            let labels = [("worker", number.to_string())];
            ConstCounter::new(of(runtime, own)).encode(family.encode_family(&labels)?)?;
        }
        Ok(())
    }
}

impl Collector for Runtimes {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let encoder = &mut encoder;
        let workers = self.sum(RuntimeMetrics::num_workers);
        let queued = self.sum(RuntimeMetrics::global_queue_depth);
        let tasks = self.sum(RuntimeMetrics::num_alive_tasks);
        gauge(encoder, "tokio_num_workers", "the number of worker threads used by the runtime", workers)?;
        let help = "the number of tasks currently scheduled in the runtime's global queue";
        gauge(encoder, "tokio_global_queue_depth", help, queued)?;
        gauge(encoder, "tokio_num_alive_tasks", "the number of alive tasks in the runtime", tasks)?;
        let help = "the amount of time worker threads have been busy";
        let busy = ("tokio_worker_total_busy_duration", help, Some(&Unit::Seconds));
        self.counters(encoder, busy, |runtime, own| runtime.worker_total_busy_duration(own).as_secs_f64())?;
        let help = "the total number of times the given worker thread has parked";
        self.counters(encoder, ("tokio_worker_park_count", help, None), RuntimeMetrics::worker_park_count)?;
        let help = "the total number of times the given worker thread has parked and unparked";
        let unparked = ("tokio_worker_park_unpark_count", help, None);
        self.counters(encoder, unparked, RuntimeMetrics::worker_park_unpark_count)
    }
}
