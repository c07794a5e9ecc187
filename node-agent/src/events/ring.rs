//! The events that are kept: two queues, each of a fixed length, and one numbering for both.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};

/// Events that are kept of everything but connections.
const MAX_OTHERS: usize = 192;
/// Failed connections that are kept.
const MAX_CONNECTIONS: usize = 64;
/// Longest text of an event, in bytes.
pub(super) const MAX_TEXT: usize = 480;

/// Something that has happened.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Event {
    /// Counted from 1 since the start of the agent.
    pub(crate) number: u64,
    /// When, RFC 3339.
    pub(crate) time: String,
    /// `info`, `warn` or `error`.
    pub(crate) level: String,
    /// What of the agent speaks.
    pub(crate) scope: String,
    /// What has happened, and to whom.
    pub(crate) text: String,
}

/// Cheap to clone; all clones are one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Events(Arc<Mutex<Ring>>);

#[derive(Debug, Default)]
struct Ring {
    last: u64,
    others: VecDeque<Event>,
    connections: VecDeque<Event>,
}

impl Events {
    /// Keeps an event, whose number is set here, and forgets the oldest of its kind if there are too many.
    pub(super) fn keep(&self, event: Event, is_connection: bool) {
        let mut ring = self.lock();
        ring.last += 1;
        let event = Event { number: ring.last, ..event };
        let (queue, limit) = if is_connection {
            (&mut ring.connections, MAX_CONNECTIONS)
        } else {
            (&mut ring.others, MAX_OTHERS)
        };
        if queue.len() >= limit {
            queue.pop_front();
        }
        queue.push_back(event);
    }

    /// The events after this number that are still there, in order; and how many of those after it are not. A number that has not been given
    /// is one of the agent before this one: then all are new.
    pub(crate) fn after(&self, number: u64) -> (Vec<Event>, u64) {
        let ring = self.lock();
        let number = if number > ring.last { 0 } else { number };
        let kept = ring.others.iter().chain(&ring.connections);
        let mut events: Vec<Event> = kept.filter(|event| event.number > number).cloned().collect();
        let happened = ring.last.saturating_sub(number);
        drop(ring);
        events.sort_unstable_by_key(|event| event.number);
        let missed = happened.saturating_sub(u64::try_from(events.len()).unwrap_or(u64::MAX));
        (events, missed)
    }

    fn lock(&self) -> MutexGuard<'_, Ring> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn event(text: &str) -> Event {
        Event { number: 0, time: String::new(), level: "info".into(), scope: "s".into(), text: text.into() }
    }

    #[test]
    fn a_flood_of_connections_displaces_nothing_else() {
        let events = Events::default();
        events.keep(event("pod enrolled"), false);
        for _ in 0..10_000 {
            events.keep(event("connection failed"), true);
        }
        let (kept, missed) = events.after(0);
        assert_eq!(kept.len(), 1 + MAX_CONNECTIONS);
        assert_eq!(kept[0].text, "pod enrolled");
        assert_eq!(missed, 10_000 - 64);
        for _ in 0..1000 {
            events.keep(event("other"), false);
        }
        assert_eq!(events.after(0).0.len(), MAX_OTHERS + MAX_CONNECTIONS);
    }

    #[test]
    fn who_asks_again_gets_what_is_new_and_hears_what_was_missed() {
        let events = Events::default();
        assert_eq!(events.after(0), (vec![], 0));
        (0..3).for_each(|_| events.keep(event("a"), false));
        let numbers = |after| events.after(after).0.iter().map(|event| event.number).collect::<Vec<_>>();
        assert_eq!(numbers(0), [1, 2, 3]);
        assert_eq!(numbers(2), [3]);
        assert_eq!(events.after(3), (vec![], 0));
        // A number of an agent before this one.
        assert_eq!(numbers(99), [1, 2, 3]);
        (0..MAX_OTHERS).for_each(|_| events.keep(event("b"), false));
        assert_eq!(events.after(1).1, 2);
    }
}
