//! Bytes moved, counted where they pass: once for the connection, once for the metric it belongs to.

use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::metrics::counter::Counter;

/// One direction's count.
#[derive(Debug, Default)]
pub(crate) struct Meter {
    bytes: AtomicU64,
    metric: Counter,
}

impl Meter {
    /// A meter that also counts into `metric`, which many connections share.
    pub(crate) fn new(metric: Counter) -> Self {
        Self { bytes: AtomicU64::new(0), metric }
    }

    pub(crate) fn add(&self, bytes: usize) {
        let bytes = bytes as u64;
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.metric.inc_by(bytes);
    }

    /// The bytes of this connection so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

/// Both directions, seen from the near end: what it sent and what it received.
#[derive(Debug, Default)]
pub(crate) struct Counters {
    /// From the near end to the far end.
    pub(crate) sent: Meter,
    /// From the far end to the near end.
    pub(crate) received: Meter,
}
