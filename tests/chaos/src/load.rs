//! The load: new connections at a steady rate, connections that are kept and used, and those who must not be served.
//!
//! A worker is a thread in its pod's namespace. That attempts fail is counted, for in a storm they do; that somebody is served who
//! must not be, or served by another than was asked, is noted as wrong, and never forgiven.

use std::io::ErrorKind;
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow, ensure};
use harness::client::{self, Attempt};
use harness::{Http, Pod, Reply};
use linux::netns::Netns;

use crate::watch::MARKER;

/// How long one waits for a connection.
const CONNECT: Duration = Duration::from_secs(3);
/// How long one waits for an answer: a SYN may be lost, and an agent start meanwhile.
const ANSWER: Duration = Duration::from_secs(5);
/// How often a connection that is kept is used.
const PERIOD: Duration = Duration::from_secs(1);
/// Between attempts of those who must not be served.
const BETWEEN: Duration = Duration::from_millis(150);
/// What is wrong is told in so many cases.
const TOLD: usize = 20;

/// How much there is of it.
#[derive(Debug, Clone, Copy)]
pub struct Size {
    /// New connections a second, of each way.
    pub rate: u64,
    /// Workers who make them, of each way: as many can be under way at once.
    pub workers: u64,
    /// Connections that are kept, of each way.
    pub kept: usize,
}

/// One way that connections go.
#[derive(Debug, Clone)]
pub struct Way {
    /// Who connects.
    pub from: Arc<Pod>,
    /// Where, one after the other.
    pub to: Vec<SocketAddr>,
    /// Who must answer.
    pub server: &'static str,
}

/// What came of it so far.
#[derive(Debug, Default)]
pub struct Counts {
    /// New connections that were served.
    pub served: AtomicU64,
    /// Those that were not.
    pub failed: AtomicU64,
    /// Of these, those that were refused or reset, and not only too slow.
    pub refused: AtomicU64,
    /// Requests on connections that are kept, and were answered.
    pub exchanged: AtomicU64,
    /// Connections that were kept and had to be made anew.
    pub renewed: AtomicU64,
    /// Of these, those that had ended, and were not only too slow.
    pub lost: AtomicU64,
    /// Attempts of those who must not be served, and were not.
    pub denied: AtomicU64,
    wrong: Mutex<Vec<String>>,
}

impl Counts {
    fn note(&self, what: String) {
        let mut wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        if wrong.len() < TOLD {
            wrong.push(what);
        }
    }

    /// Fails if anything went wrong that never may.
    pub fn check(&self) -> Result<()> {
        let wrong = self.wrong.lock().unwrap_or_else(PoisonError::into_inner);
        ensure!(wrong.is_empty(), "{wrong:#?}");
        Ok(())
    }

    /// One of the counts, now.
    pub fn now(count: &AtomicU64) -> u64 {
        count.load(Ordering::Relaxed)
    }
}

/// A load that goes on until it is ended.
#[derive(Debug)]
pub struct Load {
    /// What came of it.
    pub counts: Arc<Counts>,
    stop: Arc<AtomicBool>,
    workers: Vec<JoinHandle<Result<()>>>,
}

impl Load {
    /// Begins: each way with this size, and those who must not be served on theirs.
    pub fn start(ways: &[Way], denied: &[Way], size: Size) -> Result<Self> {
        let mut load = Self { counts: Arc::default(), stop: Arc::default(), workers: Vec::new() };
        let began = Instant::now();
        for way in ways {
            for number in 0..size.workers {
                let pace = Pace { began, number, of: size.workers, rate: size.rate };
                load.spawn(way, move |worker| worker.connect(&pace))?;
            }
            for number in 0..size.kept {
                load.spawn(way, move |worker| worker.keep(number))?;
            }
        }
        for way in denied {
            load.spawn(way, Worker::be_denied)?;
        }
        Ok(load)
    }

    fn spawn(&mut self, way: &Way, work: impl FnOnce(&Worker) -> Result<()> + Send + 'static) -> Result<()> {
        let (counts, stop) = (Arc::clone(&self.counts), Arc::clone(&self.stop));
        let worker = Worker { way: way.clone(), counts, stop };
        let netns = Netns::open(way.from.netns())?;
        let thread = std::thread::Builder::new().name("load".to_owned());
        self.workers.push(thread.spawn(move || netns.run(|| work(&worker))?)?);
        Ok(())
    }

    /// Ends it, and waits for all that is under way.
    pub fn end(mut self) -> Result<Arc<Counts>> {
        self.stop.store(true, Ordering::Relaxed);
        for worker in self.workers.drain(..) {
            worker.join().map_err(|_| anyhow!("a worker panicked"))??;
        }
        Ok(Arc::clone(&self.counts))
    }
}

impl Drop for Load {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for worker in self.workers.drain(..) {
            // Whoever drops it has something worse to tell.
            let _ = worker.join();
        }
    }
}

/// When a worker makes its connections: its share of the rate, and never more than a second late.
#[derive(Debug, Clone, Copy)]
struct Pace {
    began: Instant,
    number: u64,
    of: u64,
    rate: u64,
}

impl Pace {
    /// When the `turn`-th is due.
    fn due(&self, turn: u64) -> Instant {
        let slot = turn * self.of + self.number;
        self.began + Duration::from_micros(slot.saturating_mul(1_000_000) / self.rate.max(1))
    }

    /// The first turn that is not more than a second ago.
    fn not_long_ago(&self, turn: u64) -> u64 {
        let late = Instant::now().saturating_duration_since(self.due(turn)).as_secs();
        turn + if late == 0 { 0 } else { late * self.rate / self.of.max(1) }
    }
}

/// One thread of the load.
struct Worker {
    way: Way,
    counts: Arc<Counts>,
    stop: Arc<AtomicBool>,
}

impl Worker {
    fn is_over(&self) -> bool {
        self.stop.load(Ordering::Relaxed)
    }

    /// Waits, but not past the load's end.
    fn wait_until(&self, due: Instant) {
        while !self.is_over() && Instant::now() < due {
            std::thread::sleep(due.saturating_duration_since(Instant::now()).min(Duration::from_millis(100)));
        }
    }

    fn target(&self, turn: u64) -> Result<SocketAddr> {
        let turn = usize::try_from(turn)? % self.way.to.len().max(1);
        self.way.to.get(turn).copied().ok_or_else(|| anyhow!("a way without a destination"))
    }

    fn open(&self, turn: u64) -> Result<std::io::Result<TcpStream>> {
        let opened = client::connect(self.target(turn)?, CONNECT);
        if let Ok(stream) = &opened {
            stream.set_read_timeout(Some(ANSWER))?;
            stream.set_write_timeout(Some(ANSWER))?;
        }
        Ok(opened)
    }

    /// Makes new connections, one request on each.
    fn connect(&self, pace: &Pace) -> Result<()> {
        let mut turn = 0;
        while !self.is_over() {
            self.wait_until(pace.due(turn));
            let path = format!("/{MARKER}/{}/{turn}", pace.number);
            match client::attempt(self.open(turn)?, &path) {
                Attempt::Answered(reply) => {
                    self.judge(&reply, &path);
                    self.counts.served.fetch_add(1, Ordering::Relaxed);
                }
                failed => {
                    self.counts.refused.fetch_add(u64::from(failed.is_refused()), Ordering::Relaxed);
                    self.counts.failed.fetch_add(1, Ordering::Relaxed);
                }
            }
            turn = pace.not_long_ago(turn + 1);
        }
        Ok(())
    }

    /// Keeps one connection, and uses it now and then.
    fn keep(&self, number: usize) -> Result<()> {
        let (mut kept, mut turn): (Option<Http>, u64) = (None, 0);
        let first = Instant::now() + PERIOD * u32::try_from(number % 16)? / 16;
        self.wait_until(first);
        while !self.is_over() {
            let path = format!("/{MARKER}/kept/{number}/{turn}");
            let mut http = match kept.take() {
                Some(http) => http,
                None => match self.open(turn + number as u64)? {
                    Ok(stream) => Http::new(stream)?,
                    Err(_) => {
                        turn += 1;
                        self.wait_until(Instant::now() + PERIOD);
                        continue;
                    }
                },
            };
            match http.get(&path) {
                Ok(reply) => {
                    self.judge(&reply, &path);
                    self.counts.exchanged.fetch_add(1, Ordering::Relaxed);
                    kept = Some(http);
                }
                Err(error) => {
                    self.counts.lost.fetch_add(u64::from(!is_late(&error)), Ordering::Relaxed);
                    self.counts.renewed.fetch_add(1, Ordering::Relaxed);
                }
            }
            turn += 1;
            self.wait_until(Instant::now() + PERIOD);
        }
        Ok(())
    }

    /// Tries what must not succeed.
    fn be_denied(&self) -> Result<()> {
        let mut turn = 0;
        while !self.is_over() {
            // What is not of the mesh goes in plaintext, which is not what the watch is to find.
            let path = format!("/to-be-denied/{turn}");
            match client::attempt(self.open(turn)?, &path) {
                Attempt::Answered(reply) => {
                    let Way { from, .. } = &self.way;
                    self.counts.note(format!("{} was served: {reply:?}", from.name()));
                }
                Attempt::Refused(_) | Attempt::TimedOut(_) => {
                    self.counts.denied.fetch_add(1, Ordering::Relaxed);
                }
            }
            turn += 1;
            self.wait_until(Instant::now() + BETWEEN);
        }
        Ok(())
    }

    /// An answer must be the right server's, and to what was asked.
    fn judge(&self, reply: &Reply, path: &str) {
        if reply.status != 200 || reply.field("app") != self.way.server || reply.field("path") != path {
            self.counts.note(format!("asked {} for {path}: {reply:?}", self.way.server));
        }
    }
}

/// Whether an answer did not come in time, which is all that is known then.
fn is_late(error: &anyhow::Error) -> bool {
    let cause = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    matches!(cause, Some(ErrorKind::WouldBlock | ErrorKind::TimedOut))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn workers_share_a_rate_and_do_not_make_up_for_a_stall() {
        let began = Instant::now();
        let pace = |number| Pace { began, number, of: 4, rate: 100 };
        // Four workers, a hundred a second: each comes every 40 ms, one 10 ms after the other.
        assert_eq!(pace(1).due(0) - began, Duration::from_millis(10));
        assert_eq!(pace(1).due(1) - began, Duration::from_millis(50));
        assert_eq!(pace(0).not_long_ago(0), 0);
        let stalled = Pace { began: began - Duration::from_secs(10), number: 0, of: 4, rate: 100 };
        assert!(stalled.not_long_ago(0) >= 225, "{}", stalled.not_long_ago(0));
    }
}
