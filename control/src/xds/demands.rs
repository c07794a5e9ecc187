//! Keys that are asked for one at a time, and who waits for them.
//!
//! The control plane answers a key once on a stream, and does not tell when an answer is no longer true. So an answer that
//! nobody has a key holds for [`NEGATIVE`]; after that, and when what was found went away, the key is asked for on a fresh
//! stream. Invariants: no key is asked for twice on a stream; nothing is ever unsubscribed (the control plane would take all
//! other keys for unsubscribed, too); a stream is not left for a fresh one before it is [`FRESH`] old; all is bounded.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use tokio::sync::oneshot;

/// How long nobody is taken to have a key.
const NEGATIVE: Duration = Duration::from_secs(10);
/// How old a stream has to be to be left for a fresh one.
const FRESH: Duration = Duration::from_secs(5);
/// The most keys of one stream.
const KEYS: usize = 100_000;
/// The most who wait for one key.
const WAITERS: usize = 10_000;

/// Told true when what has the key is in the store, or nobody has it; false if that cannot be found out.
pub(super) type Waiter = oneshot::Sender<bool>;

/// The keys of the present stream.
#[derive(Debug)]
pub(super) struct Demands {
    keys: HashMap<String, Key>,
    opened: Instant,
    /// When a fresh stream is due, if one is needed.
    fresh_at: Option<Instant>,
}

#[derive(Debug)]
enum Key {
    Pending(Vec<Waiter>),
    /// It came, and was in the store then.
    Found,
    /// Nobody has it, or what has it could not be understood.
    Absent {
        understood: bool,
        at: Instant,
    },
}

impl Demands {
    pub(super) fn new(now: Instant) -> Self {
        Self { keys: HashMap::new(), opened: now, fresh_at: None }
    }

    /// Begins a stream. Returns the keys that somebody still waits for.
    pub(super) fn open(&mut self, now: Instant) -> impl Iterator<Item = &String> {
        self.keys.retain(|_, key| match key {
            Key::Pending(waiters) => {
                waiters.retain(|waiter| !waiter.is_closed());
                !waiters.is_empty()
            }
            Key::Found | Key::Absent { .. } => false,
        });
        (self.opened, self.fresh_at) = (now, None);
        self.keys.keys()
    }

    /// Someone waits for a key that is not in the store. Whether to ask for it on this stream.
    pub(super) fn add(&mut self, key: &str, waiter: Waiter, now: Instant) -> bool {
        let full = self.keys.len() >= KEYS;
        match self.keys.get_mut(key) {
            None if full => tell(waiter, false),
            None => {
                self.keys.insert(key.to_owned(), Key::Pending(vec![waiter]));
                return true;
            }
            Some(Key::Pending(waiters)) => {
                if waiters.len() >= WAITERS {
                    waiters.retain(|waiter| !waiter.is_closed());
                }
                if waiters.len() >= WAITERS { tell(waiter, false) } else { waiters.push(waiter) }
            }
            Some(Key::Absent { understood, at }) if now.duration_since(*at) < NEGATIVE => {
                tell(waiter, *understood);
            }
            Some(answered) => {
                *answered = Key::Pending(vec![waiter]);
                self.fresh_at = Some(now.max(self.opened + FRESH));
            }
        }
        false
    }

    /// A resource with this name or alias is in the store.
    pub(super) fn found(&mut self, name: &str) {
        self.answer(name, Key::Found, true);
    }

    /// Nobody has this key.
    pub(super) fn absent(&mut self, name: &str, now: Instant) {
        self.answer(name, Key::Absent { understood: true, at: now }, true);
    }

    /// A resource with this name or alias could not be understood.
    pub(super) fn refused(&mut self, name: &str, now: Instant) {
        self.answer(name, Key::Absent { understood: false, at: now }, false);
    }

    /// When to leave the stream for a fresh one.
    pub(super) fn fresh_at(&self) -> Option<Instant> {
        self.fresh_at
    }

    fn answer(&mut self, name: &str, now: Key, told: bool) {
        if let Some(key) = self.keys.get_mut(name)
            && let Key::Pending(waiters) = std::mem::replace(key, now)
        {
            for waiter in waiters {
                tell(waiter, told);
            }
        }
    }
}

/// Whoever does not wait any more needs no answer.
fn tell(waiter: Waiter, answer: bool) {
    let _ = waiter.send(answer);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn waiter() -> (Waiter, oneshot::Receiver<bool>) {
        oneshot::channel()
    }

    #[test]
    fn a_key_is_asked_for_once_and_all_who_wait_are_told() {
        let now = Instant::now();
        let mut demands = Demands::new(now);
        let ((one, mut first), (other, mut second)) = (waiter(), waiter());
        assert!(demands.add("/10.0.0.1", one, now));
        assert!(!demands.add("/10.0.0.1", other, now));
        demands.found("something else");
        assert!(first.try_recv().is_err());
        demands.found("/10.0.0.1");
        assert_eq!((first.try_recv(), second.try_recv()), (Ok(true), Ok(true)));
        assert_eq!(demands.fresh_at(), None);
    }

    #[test]
    fn a_negative_answer_does_not_last() {
        let start = Instant::now();
        let mut demands = Demands::new(start);
        let (one, mut answer) = waiter();
        assert!(demands.add("k", one, start));
        demands.absent("k", start);
        assert_eq!(answer.try_recv(), Ok(true), "it is nobody's");
        let (one, mut answer) = waiter();
        assert!(!demands.add("k", one, start + NEGATIVE / 2));
        assert_eq!((answer.try_recv(), demands.fresh_at()), (Ok(true), None));
        let (one, mut answer) = waiter();
        let later = start + NEGATIVE;
        assert!(!demands.add("k", one, later), "this stream would not answer");
        assert!(answer.try_recv().is_err());
        assert_eq!(demands.fresh_at(), Some(later));
        assert_eq!(demands.open(later).collect::<Vec<_>>(), ["k"]);
        assert_eq!(demands.fresh_at(), None);
        demands.found("k");
        assert_eq!(answer.try_recv(), Ok(true));
    }

    #[test]
    fn what_was_found_and_went_away_is_asked_for_on_a_fresh_stream() {
        let start = Instant::now();
        let mut demands = Demands::new(start);
        let (one, _first) = waiter();
        demands.add("k", one, start);
        demands.found("k");
        let (one, _second) = waiter();
        assert!(!demands.add("k", one, start + Duration::from_secs(1)));
        assert_eq!(demands.fresh_at(), Some(start + FRESH), "not before the stream is that old");
    }

    #[test]
    fn what_is_not_understood_cannot_be_found_out() {
        let now = Instant::now();
        let mut demands = Demands::new(now);
        let ((one, mut first), (other, mut second)) = (waiter(), waiter());
        demands.add("k", one, now);
        demands.refused("k", now);
        demands.add("k", other, now);
        assert_eq!((first.try_recv(), second.try_recv()), (Ok(false), Ok(false)));
    }

    #[test]
    fn keys_that_nobody_waits_for_are_dropped() {
        let now = Instant::now();
        let mut demands = Demands::new(now);
        let ((one, first), (other, _second), (third, _third)) = (waiter(), waiter(), waiter());
        demands.add("gone", one, now);
        demands.add("kept", other, now);
        demands.add("found", third, now);
        demands.found("found");
        drop(first);
        assert_eq!(demands.open(now).collect::<Vec<_>>(), ["kept"]);
    }

    #[test]
    fn there_is_a_bound() {
        let now = Instant::now();
        let mut demands = Demands::new(now);
        let mut waiting = Vec::new();
        for n in 0..KEYS {
            let (one, answer) = waiter();
            assert!(demands.add(&n.to_string(), one, now));
            waiting.push(answer);
        }
        let (one, mut answer) = waiter();
        assert!(!demands.add("one more", one, now));
        assert_eq!(answer.try_recv(), Ok(false));
    }
}
