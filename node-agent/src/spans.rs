//! Exports spans of connections to a collector, by OTLP over gRPC.
//!
//! Invariant: whoever carries connections never waits for it. A span is put into a bounded queue or dropped and counted; a
//! task of the control runtime sends what waits, in batches, and tries again with growing pauses where the collector is away.
//! When it cannot be reached one warning says so, spans beyond the queue are lost, and connections notice nothing. Without a
//! collector nothing of this is made.
//!
//! The queue and the batches are not those of `opentelemetry_sdk`: its processor has a thread of its own, does not tell how
//! many spans it dropped and why, and drops a batch at the first failure. The messages and the client are OpenTelemetry's.

mod export;
mod message;
mod metrics;
mod sampler;
#[cfg(test)]
mod tests;

use std::sync::{Arc, Mutex, PoisonError};

use prometheus_client::registry::Registry;
use tokio::sync::{mpsc, oneshot};
use tokio::task::JoinHandle;
use tunnel::Span;

pub(crate) use self::sampler::Sampler;

use self::export::Export;
use self::metrics::{Dropped, Metrics};
use crate::config;

/// What takes spans, and its task. Dropping it ends the task after one last attempt to send what waits.
#[derive(Debug)]
pub(crate) struct Exporter {
    sampler: Sampler,
    queue: mpsc::Sender<Span>,
    metrics: Metrics,
    task: Mutex<Option<(oneshot::Sender<()>, JoinHandle<()>)>>,
}

impl Exporter {
    /// Begins to export. Must be called within the control runtime. A collector that cannot be reached is no error.
    pub(crate) fn start(settings: &config::Spans, registry: &mut Registry) -> Arc<Self> {
        let metrics = Metrics::register(registry);
        let (queue, waiting) = mpsc::channel(settings.queue);
        let (stop, stopped) = oneshot::channel();
        let export = Export::new(settings, waiting, metrics.clone());
        let task = tokio::spawn(export.run(stopped));
        let task = Mutex::new(Some((stop, task)));
        Arc::new(Self { sampler: settings.sampler, queue, metrics, task })
    }
}

impl tunnel::Spans for Exporter {
    fn samples(&self, trace: u128, parent: Option<bool>) -> bool {
        self.sampler.samples(trace, parent)
    }

    fn take(&self, span: Span) {
        if self.queue.try_send(span).is_err() {
            self.metrics.lose(Dropped::QueueFull, 1);
        }
    }
}

/// Sends what waits, within 2 s, and ends the export; what could not be sent is told in the log.
pub(crate) async fn flush(exporter: Option<Arc<Exporter>>) {
    let Some(exporter) = exporter else { return };
    let task = exporter.task.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some((stop, task)) = task {
        // It may have ended already, and a panic has been told.
        let _ = stop.send(());
        let _ = task.await;
    }
}
