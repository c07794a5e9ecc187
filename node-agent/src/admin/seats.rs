//! The places of a server's connections: so many, and whose they are.
//!
//! Invariant: whoever comes when all are taken gets the place of the caller who has been waited for longest, so nobody keeps others out
//! by saying nothing or little. A caller who is being answered keeps its place. If all are, the next one waits.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use tokio::sync::{Notify, OwnedSemaphorePermit, Semaphore};
use tokio::time::Instant;

/// All places.
pub(super) struct Seats {
    places: Arc<Semaphore>,
    taken: Mutex<Vec<Arc<Caller>>>,
}

/// Who has a place.
struct Caller {
    /// Since when it is waited for; none while it is answered, and once it was told to leave.
    waited_for: Mutex<Option<Instant>>,
    leave: Notify,
}

/// A place that is taken, until it is dropped.
pub(super) struct Seat {
    seats: Arc<Seats>,
    caller: Arc<Caller>,
    _place: OwnedSemaphorePermit,
}

impl Seats {
    pub(super) fn new(count: usize) -> Arc<Self> {
        Arc::new(Self { places: Arc::new(Semaphore::new(count)), taken: Mutex::default() })
    }

    /// A place for one more caller; somebody else's, if there is no other.
    pub(super) async fn take(self: &Arc<Self>) -> Option<Seat> {
        let place = match Arc::clone(&self.places).try_acquire_owned() {
            Ok(place) => place,
            Err(_) => {
                self.make_room();
                // Nobody closes it.
                Arc::clone(&self.places).acquire_owned().await.ok()?
            }
        };
        let waited_for = Mutex::new(Some(Instant::now()));
        let caller = Arc::new(Caller { waited_for, leave: Notify::new() });
        lock(&self.taken).push(Arc::clone(&caller));
        Some(Seat { seats: Arc::clone(self), caller, _place: place })
    }

    /// Tells the one who has been waited for longest to leave.
    fn make_room(&self) {
        let taken = lock(&self.taken);
        let waited_for =
            taken.iter().filter_map(|caller| Some((*lock(&caller.waited_for))?).map(|since| (since, caller)));
        if let Some((_, longest)) = waited_for.min_by_key(|(since, _)| *since) {
            *lock(&longest.waited_for) = None;
            longest.leave.notify_one();
        }
    }
}

impl Seat {
    /// What ends the caller's connection.
    pub(super) fn hang_up(&self) -> HangUp {
        HangUp(Arc::clone(&self.caller))
    }

    /// Completes when somebody else is to have the place, or the caller is not waited for any more.
    pub(super) async fn wanted(&self) {
        self.caller.leave.notified().await;
    }

    /// The caller has asked, and is being answered.
    pub(super) fn answering(&self) -> Answering {
        *lock(&self.caller.waited_for) = None;
        Answering(Arc::clone(&self.caller))
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        lock(&self.seats.taken).retain(|caller| !Arc::ptr_eq(caller, &self.caller));
    }
}

/// Ends a caller's connection, whatever it is at.
#[derive(Clone)]
pub(super) struct HangUp(Arc<Caller>);

impl HangUp {
    /// Does it.
    pub(super) fn now(&self) {
        self.0.leave.notify_one();
    }
}

/// A caller that is being answered.
pub(super) struct Answering(Arc<Caller>);

impl Answering {
    /// The caller has its answer, and may ask for more.
    pub(super) fn done(self) {
        *lock(&self.0.waited_for) = Some(Instant::now());
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    /// Looked at once.
    async fn now<T>(future: impl Future<Output = T>) -> Option<T> {
        timeout(Duration::ZERO, future).await.ok()
    }

    #[tokio::test]
    async fn who_is_waited_for_longest_makes_room_and_who_is_answered_does_not() {
        let seats = Seats::new(3);
        let first = seats.take().await.unwrap();
        let second = seats.take().await.unwrap();
        let third = seats.take().await.unwrap();
        let answering = first.answering();
        let mut fourth = Box::pin(seats.take());
        assert!(now(fourth.as_mut()).await.is_none());
        assert!(now(first.wanted()).await.is_none() && now(third.wanted()).await.is_none());
        assert!(now(second.wanted()).await.is_some());
        drop(second);
        let fourth = fourth.await.unwrap();
        // Now it is waited for as well, but not for as long as the third.
        answering.done();
        let mut fifth = Box::pin(seats.take());
        assert!(now(fifth.as_mut()).await.is_none());
        assert!(now(first.wanted()).await.is_none() && now(fourth.wanted()).await.is_none());
        assert!(now(third.wanted()).await.is_some());
    }

    #[tokio::test]
    async fn where_all_are_answered_the_next_one_waits() {
        let seats = Seats::new(1);
        let first = seats.take().await.unwrap();
        let _answering = first.answering();
        let mut second = Box::pin(seats.take());
        assert!(now(second.as_mut()).await.is_none() && now(first.wanted()).await.is_none());
        drop(first);
        assert!(second.await.is_some());
    }
}
