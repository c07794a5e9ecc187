//! From where so many connections come to a pod by tunnels that its next tunnels are served beside the others.
//!
//! A tunnel stays with the worker that it was dealt to. An agent that is of our kind opens one of its own for a crowd, as soon as it knows that it
//! has one: by then half of that has come here, by the tunnels that there were.
//!
//! Invariant: only those are counted whose client is proven, and they are forgotten with their last tunnel.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::{Duration, Instant};

use crate::pace::{CROWD, Pace};

/// So many connections within a window, by all tunnels of a source together, foretell a crowd.
const SIGNS: u32 = CROWD / 2;
/// For so long after that its tunnels are dealt to workers for crowds.
const MEMORY: Duration = Duration::from_secs(10);

/// The sources that a pod has tunnels from.
#[derive(Debug, Default)]
pub(crate) struct Crowds(Mutex<HashMap<IpAddr, Weak<Source>>>);

/// An address that tunnels come from.
#[derive(Debug)]
pub(crate) struct Source(Mutex<State>);

#[derive(Debug)]
struct State {
    pace: Pace,
    /// When it had many last.
    many: Option<Instant>,
}

impl Crowds {
    /// The source of a tunnel, to be held as long as that is there.
    pub(crate) fn source(&self, address: IpAddr, now: Instant) -> Arc<Source> {
        let mut sources = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(source) = sources.get(&address.to_canonical()).and_then(Weak::upgrade) {
            return source;
        }
        sources.retain(|_, source| source.strong_count() > 0);
        let source = Arc::new(Source(Mutex::new(State { pace: Pace::of(SIGNS, now), many: None })));
        sources.insert(address.to_canonical(), Arc::downgrade(&source));
        source
    }

    /// Whether many connections have come from there lately.
    pub(crate) fn come_from(&self, address: IpAddr, now: Instant) -> bool {
        let sources = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let source = sources.get(&address.to_canonical()).and_then(Weak::upgrade);
        drop(sources);
        source.is_some_and(|source| source.had_many(now))
    }
}

impl Source {
    /// A connection comes by one of its tunnels.
    pub(crate) fn enter(&self, now: Instant) {
        let mut state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if state.pace.enter(now) {
            state.many = Some(now);
        }
    }

    fn had_many(&self, now: Instant) -> bool {
        let state = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        state.many.is_some_and(|many| now.saturating_duration_since(many) < MEMORY)
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    fn addresses() -> [IpAddr; 3] {
        ["10.0.0.1", "::ffff:10.0.0.1", "10.0.0.2"].map(|address| address.parse().unwrap())
    }

    #[test]
    fn what_comes_by_all_tunnels_of_a_source_is_counted_together_and_remembered_for_a_while() {
        let (crowds, now) = (Crowds::default(), Instant::now());
        let [one, mapped, other] = addresses();
        let tunnels = [crowds.source(one, now), crowds.source(mapped, now)];
        let _quiet = crowds.source(other, now);
        for number in 1..SIGNS {
            tunnels[number as usize % 2].enter(now);
        }
        assert!(!crowds.come_from(one, now), "one is missing");
        tunnels[0].enter(now);
        assert!(crowds.come_from(one, now) && crowds.come_from(mapped, now + MEMORY / 2));
        assert!(!crowds.come_from(other, now) && !crowds.come_from(one, now + MEMORY));
    }

    #[test]
    fn a_source_is_forgotten_with_its_last_tunnel() {
        let (crowds, now) = (Crowds::default(), Instant::now());
        let [one, _, other] = addresses();
        let first = crowds.source(one, now);
        (0..SIGNS).for_each(|_| first.enter(now));
        let second = crowds.source(one, now);
        drop(first);
        assert!(crowds.come_from(one, now), "it has another");
        drop(second);
        assert!(!crowds.come_from(one, now));
        for number in 0..100 {
            crowds.source(Ipv4Addr::from_bits(number).into(), now);
        }
        let _kept = crowds.source(other, now);
        assert_eq!(crowds.0.lock().unwrap().len(), 1, "what is forgotten takes no room");
    }
}
