//! How long connections take to come about, by workload, while somebody asks.
//!
//! Invariant: while nobody asks, a connection costs one look at a number, and nothing is held. Who asks does so for a while, and asks
//! again before it is over; what was counted is forgotten with the first connection after that.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::labels::Reporter;
use super::party::Party;
use crate::connections::Direction;

/// Workloads that are told apart; further ones are not counted.
const MOST: usize = 1000;
/// The first bucket holds what takes less than 2^FIRST + 2^(FIRST - 2) microseconds.
const FIRST: u32 = 5;
/// Doublings from there on, up to half a minute; what takes longer is counted in the last bucket.
const DOUBLINGS: u32 = 20;
/// Buckets for each doubling, as a power of two: a bucket's bounds lie a quarter of its octave apart.
const PARTS: u32 = 2;
const BUCKETS: usize = (DOUBLINGS << PARTS) as usize;
/// Nobody asks.
const NOBODY: u64 = 0;

/// How long the connections of one workload took, since somebody asks.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConnectTimes {
    /// Of the workload; empty if that is not known.
    pub namespace: Arc<str>,
    /// Its name, as metrics have it.
    pub workload: Arc<str>,
    /// Whether it is the client of these connections, or the server.
    pub direction: Direction,
    /// Connections by the time from their arrival at the agent to the answer of whom they are for: less than so much, and more than
    /// the one before. Buckets that are empty are left out.
    pub counts: Vec<(Duration, u32)>,
}

#[derive(Debug, PartialEq, Eq, Hash)]
struct Whose {
    namespace: Arc<str>,
    workload: Arc<str>,
    reporter: Reporter,
}

/// What is counted.
#[derive(Debug)]
pub(crate) struct Clocks {
    began: Instant,
    /// Milliseconds from then until which somebody asks, or [`NOBODY`].
    until: AtomicU64,
    counts: Mutex<HashMap<Whose, Box<[u32; BUCKETS]>>>,
}

impl Default for Clocks {
    fn default() -> Self {
        Self { began: Instant::now(), until: AtomicU64::new(NOBODY), counts: Mutex::default() }
    }
}

impl Clocks {
    /// A connection that arrived then has come about.
    pub(super) fn stop(&self, reporter: Reporter, whose: Option<&Party>, arrived: Instant) {
        let until = self.until.load(Ordering::Relaxed);
        if until != NOBODY {
            self.count(reporter, whose, arrived, until);
        }
    }

    /// What was counted since somebody asks; counting goes on for so long at least.
    pub(crate) fn ask(&self, for_another: Duration) -> Vec<ConnectTimes> {
        let until = self.milliseconds(Instant::now() + for_another);
        let counts = self.lock();
        self.until.fetch_max(until.max(NOBODY + 1), Ordering::Relaxed);
        counts.iter().map(|(whose, buckets)| whose.view(buckets.as_slice())).collect()
    }

    #[cold]
    fn count(&self, reporter: Reporter, whose: Option<&Party>, arrived: Instant, until: u64) {
        let now = Instant::now();
        let mut counts = self.lock();
        if self.milliseconds(now) > until {
            // Whoever has asked meanwhile goes on asking; what it knows of the past is of no use to it.
            let _ = self.until.compare_exchange(until, NOBODY, Ordering::Relaxed, Ordering::Relaxed);
            *counts = HashMap::new();
            return;
        }
        let (namespace, workload) = whose
            .map(|party| (Arc::clone(&party.namespace), Arc::clone(&party.workload)))
            .unwrap_or_default();
        let whose = Whose { namespace, workload, reporter };
        if counts.len() >= MOST && !counts.contains_key(&whose) {
            return;
        }
        let buckets = counts.entry(whose).or_insert_with(|| Box::new([0; BUCKETS]));
        if let Some(bucket) = buckets.get_mut(bucket(now.duration_since(arrived))) {
            *bucket = bucket.saturating_add(1);
        }
    }

    fn milliseconds(&self, at: Instant) -> u64 {
        u64::try_from(at.saturating_duration_since(self.began).as_millis()).unwrap_or(u64::MAX)
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<Whose, Box<[u32; BUCKETS]>>> {
        self.counts.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Whose {
    fn view(&self, buckets: &[u32]) -> ConnectTimes {
        let counts = buckets.iter().enumerate().filter(|(_, count)| **count > 0);
        ConnectTimes {
            namespace: Arc::clone(&self.namespace),
            workload: Arc::clone(&self.workload),
            direction: match self.reporter {
                Reporter::Source => Direction::Outbound,
                Reporter::Destination => Direction::Inbound,
            },
            counts: counts.map(|(bucket, count)| (bound(bucket), *count)).collect(),
        }
    }
}

/// The bucket of a time: its octave, and the quarter of that.
fn bucket(took: Duration) -> usize {
    let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
    let micros = micros.clamp(1 << FIRST, (1 << (FIRST + DOUBLINGS)) - 1);
    let octave = micros.ilog2();
    let part = (micros >> (octave - PARTS)) & ((1 << PARTS) - 1);
    (((octave - FIRST) << PARTS) as usize) + usize::try_from(part).unwrap_or_default()
}

/// What everything in a bucket took less than.
fn bound(bucket: usize) -> Duration {
    let bucket = u64::try_from(bucket).unwrap_or_default();
    let (octave, part) = (bucket >> PARTS, bucket & ((1 << PARTS) - 1));
    Duration::from_micros(((1 << PARTS) + part + 1) << (u64::from(FIRST - PARTS) + octave))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn party(name: &str) -> Party {
        Party { namespace: "demo".into(), workload: name.into(), ..Party::default() }
    }

    #[test]
    fn a_bucket_is_never_more_than_a_quarter_off() {
        for micros in [0, 1, 31, 32, 39, 40, 63, 64, 1_000, 1_234_567, 33_000_000] {
            let took = Duration::from_micros(micros);
            let bound = bound(bucket(took));
            assert!(bound > took, "{took:?} {bound:?}");
            assert!(bound <= (took + took / 4).max(Duration::from_micros(40)) + Duration::from_micros(1));
        }
        assert_eq!(bucket(Duration::MAX), BUCKETS - 1);
        assert_eq!((bucket(Duration::ZERO), bound(0)), (0, Duration::from_micros(40)));
        assert!((1..BUCKETS).all(|bucket| bound(bucket) > bound(bucket - 1)));
    }

    #[test]
    fn nothing_is_held_while_nobody_asks() {
        let clocks = Clocks::default();
        let now = Instant::now();
        clocks.stop(Reporter::Source, Some(&party("sleep")), now);
        assert!(clocks.lock().is_empty());
        assert!(clocks.ask(Duration::from_secs(3600)).is_empty());
        clocks.stop(Reporter::Source, Some(&party("sleep")), now);
        clocks.stop(Reporter::Source, Some(&party("sleep")), now);
        clocks.stop(Reporter::Destination, None, now);
        let mut told = clocks.ask(Duration::ZERO);
        told.sort_by(|one, other| one.workload.cmp(&other.workload));
        let [unknown, sleep] = told.as_slice() else { panic!("{told:?}") };
        assert_eq!((&*unknown.workload, unknown.direction), ("", Direction::Inbound));
        assert_eq!(
            (&*sleep.namespace, &*sleep.workload, sleep.direction),
            ("demo", "sleep", Direction::Outbound)
        );
        assert_eq!(sleep.counts.iter().map(|(_, count)| count).sum::<u32>(), 2);
        // What was asked for a shorter while does not end what was for a longer one; the end of that does.
        assert_eq!(clocks.ask(Duration::ZERO).len(), 2);
        clocks.until.store(NOBODY + 1, Ordering::Relaxed);
        while clocks.milliseconds(Instant::now()) <= NOBODY + 1 {
            std::thread::yield_now();
        }
        clocks.stop(Reporter::Source, Some(&party("sleep")), now);
        assert!(clocks.lock().is_empty() && clocks.until.load(Ordering::Relaxed) == NOBODY);
    }

    #[test]
    fn names_that_are_made_up_find_an_end() {
        let clocks = Clocks::default();
        let now = Instant::now();
        clocks.ask(Duration::from_secs(3600));
        for number in 0..MOST + 10 {
            clocks.stop(Reporter::Destination, Some(&party(&number.to_string())), now);
        }
        clocks.stop(Reporter::Destination, Some(&party("0")), now);
        let told = clocks.ask(Duration::from_secs(3600));
        assert_eq!(told.len(), MOST);
        let first = told.iter().find(|times| &*times.workload == "0").unwrap();
        assert_eq!(first.counts.iter().map(|(_, count)| count).sum::<u32>(), 2);
    }
}
