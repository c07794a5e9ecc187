//! Requests at a steady rate on connections that stay, and how long each takes.
//!
//! A request has its time whether or not the one before it was late, and its latency counts from then: what waits behind a
//! stall is counted as waiting.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow};
use harness::Http;

/// Requests of all connections together in a second.
const RATE: u32 = 500;

/// A request: when it was due, and how long it took from then.
#[derive(Clone, Copy, Debug)]
pub(super) struct Sample {
    due: Instant,
    latency: Duration,
}

/// Requests that go on until this is dropped.
#[derive(Debug)]
pub(super) struct Load {
    samples: Arc<Mutex<Vec<Sample>>>,
    end: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Result<()>>>,
}

impl Load {
    /// Begins, on these connections.
    pub(super) fn start(connections: Vec<Http>) -> Self {
        let (samples, end) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicBool::new(false)));
        let count = u32::try_from(connections.len()).unwrap_or(1);
        let (period, begin) = (Duration::from_secs(1) * count / RATE, Instant::now());
        let threads = connections.into_iter().zip(0..).map(|(http, number): (Http, u32)| {
            let (samples, end) = (Arc::clone(&samples), Arc::clone(&end));
            std::thread::spawn(move || ask(http, begin + period * number / count, period, &samples, &end))
        });
        let threads = threads.collect();
        Self { samples, end, threads }
    }

    /// The latency in milliseconds below which `share` of the requests stayed that were due in this time.
    pub(super) fn quantile(&self, from: Instant, to: Instant, share: f64) -> f64 {
        let samples = self.samples.lock().unwrap_or_else(PoisonError::into_inner);
        let within = samples.iter().filter(|sample| (from..to).contains(&sample.due));
        let mut millis: Vec<f64> = within.map(|sample| sample.latency.as_secs_f64() * 1e3).collect();
        millis.sort_by(f64::total_cmp);
        crate::stats::quantile(&millis, share)
    }

    /// Ends it; an error if a request failed.
    pub(super) fn finish(mut self) -> Result<()> {
        self.end.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().map_err(|_| anyhow!("a thread of the load panicked"))??;
        }
        Ok(())
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
    }
}

fn ask(
    mut http: Http,
    mut due: Instant,
    period: Duration,
    samples: &Mutex<Vec<Sample>>,
    end: &AtomicBool,
) -> Result<()> {
    while !end.load(Ordering::Relaxed) {
        std::thread::sleep(due.saturating_duration_since(Instant::now()));
        let reply = http.get("/").context("a request of the load")?;
        anyhow::ensure!(reply.status == 200, "a request of the load was answered with {}", reply.status);
        let sample = Sample { due, latency: due.elapsed() };
        samples.lock().unwrap_or_else(PoisonError::into_inner).push(sample);
        due += period;
    }
    Ok(())
}
