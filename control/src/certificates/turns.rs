//! Whose fetch is next: a bounded number is under way, and who waits longest of the most urgent kind gets the next turn.
//!
//! Invariants: no more turns are out than there are; a turn that was given to somebody who has left meanwhile is given on.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::oneshot;

/// How urgent a fetch is, the most urgent first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Priority {
    /// A connection waits for it.
    Connection,
    /// It will be asked for, and there is none.
    WarmUp,
    /// There is one that is still valid.
    Renewal,
}

/// The turns.
#[derive(Debug)]
pub(super) struct Turns(Mutex<State>);

#[derive(Debug)]
struct State {
    free: usize,
    next: u64,
    waiting: BTreeMap<Place, oneshot::Sender<()>>,
}

/// Where somebody stands in the queue.
type Place = (Priority, u64);

/// Somebody who waits; leaves the queue when dropped.
pub(super) struct Waiting {
    turns: Arc<Turns>,
    /// None once the turn was taken.
    place: Option<Place>,
    granted: oneshot::Receiver<()>,
}

/// A turn; given back when dropped.
pub(super) struct Turn(Arc<Turns>);

impl Turns {
    pub(super) fn new(count: usize) -> Arc<Self> {
        let state = State { free: count.max(1), next: 0, waiting: BTreeMap::new() };
        Arc::new(Self(Mutex::new(state)))
    }

    /// Joins the queue.
    pub(super) fn enter(self: &Arc<Self>, priority: Priority) -> Waiting {
        let (grant, granted) = oneshot::channel();
        let mut state = self.state();
        let place = (priority, state.next);
        state.next += 1;
        state.waiting.insert(place, grant);
        state.grant();
        drop(state);
        Waiting { turns: Arc::clone(self), place: Some(place), granted }
    }

    fn give_back(&self) {
        let mut state = self.state();
        state.free += 1;
        state.grant();
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn grant(&mut self) {
        while self.free > 0 {
            let Some((_, grant)) = self.waiting.pop_first() else { return };
            // Who waits leaves the queue before the other end of this goes.
            if grant.send(()).is_ok() {
                self.free -= 1;
            }
        }
    }
}

impl Waiting {
    /// Completes when it is this one's turn. May be called again if it was abandoned, and not after it has completed.
    pub(super) async fn turn(&mut self) -> Turn {
        // The other end sends before it goes.
        let _ = (&mut self.granted).await;
        self.place = None;
        Turn(Arc::clone(&self.turns))
    }

    /// Moves ahead, if that is more urgent than it was; among its like it keeps the place that its age gives it.
    pub(super) fn raise(&mut self, priority: Priority) {
        let Some((now, age)) = self.place.filter(|(now, _)| priority < *now) else { return };
        let mut state = self.turns.state();
        if let Some(grant) = state.waiting.remove(&(now, age)) {
            state.waiting.insert((priority, age), grant);
            self.place = Some((priority, age));
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let Some(place) = self.place else { return };
        let left = self.turns.state().waiting.remove(&place).is_some();
        if !left {
            self.turns.give_back();
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.0.give_back();
    }
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt;

    use super::*;

    fn now(waiting: &mut Waiting) -> Option<Turn> {
        waiting.turn().now_or_never()
    }

    #[test]
    fn the_most_urgent_is_next_and_among_its_like_the_oldest() {
        let turns = Turns::new(1);
        let taken = now(&mut turns.enter(Priority::Renewal)).unwrap();
        let mut renewal = turns.enter(Priority::Renewal);
        let mut warm = turns.enter(Priority::WarmUp);
        let mut first = turns.enter(Priority::Connection);
        let mut second = turns.enter(Priority::Connection);
        assert!([&mut renewal, &mut warm, &mut first, &mut second].into_iter().all(|one| now(one).is_none()));
        drop(taken);
        for expected in 0..4 {
            let turns: Vec<Option<Turn>> = [&mut first, &mut second, &mut warm, &mut renewal]
                .into_iter()
                .map(|one| one.place.and_then(|_| now(one)))
                .collect();
            let got = turns.iter().position(Option::is_some);
            assert_eq!(got, Some(expected));
        }
    }

    #[test]
    fn who_becomes_urgent_moves_ahead_and_never_back() {
        let turns = Turns::new(1);
        let taken = now(&mut turns.enter(Priority::Renewal)).unwrap();
        let mut renewal = turns.enter(Priority::Renewal);
        let mut warm = turns.enter(Priority::WarmUp);
        renewal.raise(Priority::Connection);
        renewal.raise(Priority::WarmUp);
        drop(taken);
        assert!(now(&mut warm).is_none());
        assert!(now(&mut renewal).is_some());
    }

    #[test]
    fn a_turn_of_somebody_who_left_is_given_on() {
        let turns = Turns::new(2);
        let mut all = [(); 2].map(|()| now(&mut turns.enter(Priority::Renewal)).unwrap()).into_iter();
        let gone_while_waiting = turns.enter(Priority::Connection);
        let granted_and_gone = turns.enter(Priority::Connection);
        let mut stays = turns.enter(Priority::Renewal);
        drop(gone_while_waiting);
        drop(all.next());
        assert!(now(&mut stays).is_none(), "another one has it");
        drop(granted_and_gone);
        let turn = now(&mut stays).unwrap();
        drop((turn, all));
        assert_eq!(turns.state().free, 2);
    }
}
