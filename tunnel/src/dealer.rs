//! Which worker serves a new connection of a listener.
//!
//! All in turn, as long as nothing is known of them: eight connections of much traffic are to have eight workers. A listener to
//! which so many come that each must be brief is another matter: to wake another thread for each costs more than to serve it, and what one
//! worker writes to a tunnel goes out together. They stay with the worker that accepts them, as long as it keeps up.
//!
//! Invariants: a worker that does not keep up, or has much more of the pod's connections than another, gets them in turn with all others.

use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::share::Share;

/// For so long connections are counted.
const WINDOW: Duration = Duration::from_millis(50);
/// With so many in a window they are a crowd.
const CROWD: u32 = 64;
/// The worker does not keep up if connections have been waiting to be accepted for so long without a pause.
const BEHIND: Duration = Duration::from_millis(2);
/// So many connections more than the worker that has the fewest one may have, and an eighth of those.
const AHEAD: usize = 32;

/// Deals the connections of a listener.
pub(crate) struct Dealer {
    /// The pod's, one of each worker.
    shares: Arc<[Share]>,
    /// The worker that accepts.
    home: usize,
    /// Whether any may stay with the worker that accepts them.
    may_stay: bool,
    pace: Pace,
}

impl Dealer {
    /// For a listener whose connections are accepted by the worker `home`, and served in one of `shares`, which has one for each worker.
    /// Where they are tunnels, however brief, none stays: to begin one costs more than to wake another thread.
    pub(crate) fn new(home: usize, shares: Arc<[Share]>, are_tunnels: bool, now: Instant) -> Self {
        Self { shares, home, may_stay: !are_tunnels, pace: Pace::new(now) }
    }

    /// The worker, by its number, and the share of the next connection. `backlog` is how long connections have been waiting to be accepted
    /// without a pause, and `turn` tells whose turn it is. None if there are no workers.
    pub(crate) fn next(
        &mut self,
        (backlog, now): (Duration, Instant),
        turn: impl FnOnce() -> Option<usize>,
    ) -> Option<(usize, &Share)> {
        let is_crowd = self.pace.enter(now);
        let stays = self.may_stay && is_crowd && backlog < BEHIND && !self.is_ahead();
        let chosen = if stays { self.home } else { turn()? };
        Some((chosen, self.shares.get(chosen)?))
    }

    /// Whether the accepting worker has much more of the pod's connections than another.
    fn is_ahead(&self) -> bool {
        let home = self.shares.get(self.home).map_or(0, Share::len);
        // The others are looked at only if it may matter: there are as many as CPUs.
        home > AHEAD && {
            let fewest = self.shares.iter().map(Share::len).min().unwrap_or_default();
            home > fewest + fewest / 8 + AHEAD
        }
    }
}

/// How many come.
struct Pace {
    /// The beginning of the window.
    since: Instant,
    count: u32,
    /// Of the window before.
    before: u32,
}

impl Pace {
    fn new(now: Instant) -> Self {
        Self { since: now, count: 0, before: 0 }
    }

    /// Whether one that comes now is one of a crowd.
    fn enter(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.since);
        if passed >= WINDOW {
            let before = if passed < WINDOW * 2 { self.count } else { 0 };
            *self = Self { before, ..Self::new(now) };
        }
        self.count += 1;
        self.count.max(self.before) >= CROWD
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::ops::Range;

    use tokio::runtime::Handle;

    use super::*;

    const WORKERS: usize = 3;
    const HOME: usize = 1;
    /// Between two of a crowd.
    const SOON: Duration = Duration::from_micros(500);

    /// A dealer, and the time by which it goes.
    struct Deal {
        dealer: Dealer,
        turns: Range<usize>,
        now: Instant,
    }

    impl Deal {
        fn new(are_tunnels: bool) -> Self {
            let now = Instant::now();
            let shares = (0..WORKERS).map(|_| Share::on(&Handle::current())).collect();
            Self { dealer: Dealer::new(HOME, shares, are_tunnels, now), turns: 0..usize::MAX, now }
        }

        /// Who gets one that comes after some time.
        fn after(&mut self, time: Duration, backlog: Duration) -> usize {
            self.now += time;
            let turn = || Some(self.turns.next()? % WORKERS);
            self.dealer.next((backlog, self.now), turn).unwrap().0
        }

        /// How many each gets of so many that come soon after one another.
        fn counts(&mut self, number: usize, backlog: Duration) -> [usize; WORKERS] {
            let mut counts = [0; WORKERS];
            for _ in 0..number {
                counts[self.after(SOON, backlog)] += 1;
            }
            counts
        }

        /// Has one worker hold so many.
        fn hold(&self, worker: usize, number: usize) {
            for _ in 0..number {
                self.dealer.shares[worker].spawn(pending());
            }
        }
    }

    #[tokio::test]
    async fn few_are_dealt_to_all_in_turn() {
        let mut deal = Deal::new(false);
        let seen: Vec<usize> = (0..4).map(|_| deal.after(SOON, Duration::ZERO)).collect();
        assert_eq!(seen, [0, 1, 2, 0]);
        let slowly = (0..300).map(|_| deal.after(SOON * 2, Duration::ZERO));
        assert_eq!(slowly.filter(|worker| *worker == HOME).count(), 100, "1000 a second are few");
    }

    #[tokio::test]
    async fn a_crowd_stays_where_it_is_accepted_until_it_is_over() {
        let mut deal = Deal::new(false);
        deal.counts(100, Duration::ZERO);
        assert_eq!(deal.counts(380, Duration::ZERO), [0, 380, 0]);
        // The window before still counts, the one before that does not.
        assert_eq!(deal.after(WINDOW, Duration::ZERO), HOME);
        let after: Vec<usize> = (0..3).map(|_| deal.after(WINDOW, Duration::ZERO)).collect();
        assert!((0..WORKERS).all(|worker| after.contains(&worker)), "{after:?}");
    }

    #[tokio::test]
    async fn a_crowd_is_for_all_if_the_worker_does_not_keep_up() {
        let mut deal = Deal::new(false);
        deal.counts(100, Duration::ZERO);
        assert_eq!(deal.counts(300, BEHIND), [100, 100, 100]);
        assert_eq!(deal.counts(300, BEHIND / 2), [0, 300, 0]);
    }

    #[tokio::test]
    async fn a_crowd_is_for_all_if_the_worker_has_much_more_than_another() {
        let mut deal = Deal::new(false);
        deal.counts(100, Duration::ZERO);
        deal.hold(HOME, AHEAD);
        assert_eq!(deal.counts(30, Duration::ZERO), [0, 30, 0]);
        deal.hold(HOME, 1);
        assert_eq!(deal.counts(30, Duration::ZERO), [10, 10, 10]);
        deal.hold(0, 100);
        assert_eq!(deal.counts(30, Duration::ZERO), [10, 10, 10], "the third has none");
        deal.hold(2, 100);
        assert_eq!(deal.counts(30, Duration::ZERO), [0, 30, 0]);
        deal.hold(HOME, 111);
        assert_eq!(deal.counts(30, Duration::ZERO), [0, 30, 0], "an eighth more is not much");
        deal.hold(HOME, 1);
        assert_eq!(deal.counts(30, Duration::ZERO), [10, 10, 10]);
    }

    #[tokio::test]
    async fn tunnels_are_dealt_in_turn_however_many_come() {
        let mut deal = Deal::new(true);
        assert_eq!(deal.counts(300, Duration::ZERO), [100, 100, 100]);
    }
}
