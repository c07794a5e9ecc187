//! Which worker serves a new connection of a listener.
//!
//! All in turn, as long as nothing is known of them: eight connections of much traffic are to have eight workers. A listener to
//! which so many come that each must be brief is another matter: to wake another thread for each costs more than to serve it, and what one
//! worker writes to a tunnel goes out together. They are accepted and served by a worker that is for crowds, as long as it keeps up.
//!
//! Invariants: what comes in a crowd is served by workers for crowds alone. One that does not keep up, or has much more of the pod's connections than
//! another, gets them in turn with all others.

use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant};

use crate::pace::Pace;
use crate::seat::{Duty, Seat, Seats};
use crate::share::Share;

/// The worker does not keep up if connections have been waiting to be accepted for so long without a pause.
const BEHIND: Duration = Duration::from_millis(2);
/// So many connections more than the worker that has the fewest one may have, and an eighth of those.
const AHEAD: usize = 32;

/// Deals the connections of a listener.
pub(crate) struct Dealer {
    /// The pod's, one of each worker, made when its first connection comes there.
    shares: Arc<Seats<OnceLock<Share>>>,
    /// The worker that accepts what is no crowd.
    home: Seat,
    /// Whether any may stay with the worker that accepts them.
    may_stay: bool,
    pace: Pace,
}

/// What becomes of a connection.
pub(crate) struct Dealt<'a> {
    /// The worker that serves it.
    pub(crate) to: Seat,
    /// The pod's share of that, to be made if it is not there.
    pub(crate) share: &'a OnceLock<Share>,
    /// The worker that is to accept the next one.
    pub(crate) acceptor: Seat,
}

impl Dealer {
    /// For a listener whose connections are accepted by the worker `home`, and served in one of `shares`, which has one for each worker.
    /// Where they are tunnels, however brief, none stays: to begin one costs more than to wake another thread.
    pub(crate) fn new(
        home: Seat,
        shares: Arc<Seats<OnceLock<Share>>>,
        are_tunnels: bool,
        now: Instant,
    ) -> Self {
        Self { shares, home, may_stay: !are_tunnels, pace: Pace::new(now) }
    }

    /// What becomes of the next connection. `backlog` is how long connections have been waiting to be accepted
    /// without a pause, and `turn` tells whose turn it is of those that have a duty. None if there are no workers.
    pub(crate) fn next(
        &mut self,
        (backlog, now): (Duration, Instant),
        turn: impl FnOnce(Duty) -> Option<Seat>,
    ) -> Option<Dealt<'_>> {
        let is_crowd = self.pace.enter(now) && self.may_stay;
        let acceptor = self.home.with(if is_crowd { Duty::Crowds } else { Duty::All });
        let stays = is_crowd && backlog < BEHIND && !self.is_ahead(acceptor);
        let to = if stays { acceptor } else { turn(acceptor.duty)? };
        Some(Dealt { to, share: self.shares.get(to)?, acceptor })
    }

    /// Whether a worker has much more of the pod's connections than another with its duty.
    fn is_ahead(&self, seat: Seat) -> bool {
        let len = |share: &OnceLock<Share>| share.get().map_or(0, Share::len);
        let held = self.shares.get(seat).map_or(0, len);
        // The others are looked at only if it may matter: there are as many as CPUs.
        held > AHEAD && {
            let fewest = self.shares.of(seat.duty).iter().map(len).min().unwrap_or_default();
            held > fewest + fewest / 8 + AHEAD
        }
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;
    use std::future::pending;
    use std::ops::Range;

    use tokio::runtime::Handle;

    use super::*;
    use crate::pace::WINDOW;

    const WORKERS: usize = 3;
    const HOME: Seat = Seat { duty: Duty::All, number: 1 };
    /// The worker beside it.
    const BESIDE: Seat = HOME.with(Duty::Crowds);
    /// Between two of a crowd.
    const SOON: Duration = Duration::from_micros(500);

    /// A dealer, and the time by which it goes.
    struct Deal {
        dealer: Dealer,
        turns: Range<usize>,
        now: Instant,
    }

    /// How many each worker got: of those for all, and of those for crowds.
    type Counts = [[usize; WORKERS]; 2];

    impl Deal {
        fn new(are_tunnels: bool) -> Self {
            let now = Instant::now();
            let shares = Seats::try_new(WORKERS, |_| Ok::<_, Infallible>(OnceLock::new()));
            let dealer = Dealer::new(HOME, Arc::new(shares.unwrap()), are_tunnels, now);
            Self { dealer, turns: 0..usize::MAX, now }
        }

        /// Who gets one that comes after some time, and who is to accept the next.
        fn after(&mut self, time: Duration, backlog: Duration) -> (Seat, Seat) {
            self.now += time;
            let turn = |duty| Some(Seat { duty, number: self.turns.next()? % WORKERS });
            let dealt = self.dealer.next((backlog, self.now), turn).unwrap();
            (dealt.to, dealt.acceptor)
        }

        /// How many each gets of so many that come soon after one another.
        fn counts(&mut self, number: usize, backlog: Duration) -> Counts {
            let mut counts = Counts::default();
            for _ in 0..number {
                let (to, _) = self.after(SOON, backlog);
                counts[usize::from(to.duty == Duty::Crowds)][to.number] += 1;
            }
            counts
        }

        /// Has one of those for crowds hold so many.
        fn hold(&self, number: usize, count: usize) {
            for _ in 0..count {
                let share = &self.dealer.shares.of(Duty::Crowds)[number];
                share.get_or_init(|| Share::on(&Handle::current())).spawn(pending());
            }
        }
    }

    /// What the workers for crowds got, where those for all got nothing.
    fn crowds(counts: Counts) -> [usize; WORKERS] {
        let [all, crowds] = counts;
        assert_eq!(all, [0; WORKERS]);
        crowds
    }

    #[tokio::test]
    async fn few_are_dealt_to_all_in_turn() {
        let mut deal = Deal::new(false);
        let seen: Vec<(Seat, Seat)> = (0..4).map(|_| deal.after(SOON, Duration::ZERO)).collect();
        assert_eq!(seen.iter().map(|(to, _)| to.number).collect::<Vec<_>>(), [0, 1, 2, 0]);
        assert!(seen.iter().all(|(to, acceptor)| to.duty == Duty::All && *acceptor == HOME));
        let slowly = (0..300).map(|_| deal.after(SOON * 2, Duration::ZERO).0);
        assert_eq!(slowly.filter(|to| *to == HOME).count(), 100, "1000 a second are few");
    }

    #[tokio::test]
    async fn a_crowd_is_accepted_and_served_beside_the_rest_until_it_is_over() {
        let mut deal = Deal::new(false);
        deal.counts(100, Duration::ZERO);
        assert_eq!(crowds(deal.counts(380, Duration::ZERO)), [0, 380, 0]);
        // The window before still counts, the one before that does not.
        assert_eq!(deal.after(WINDOW, Duration::ZERO), (BESIDE, BESIDE));
        let after: Vec<(Seat, Seat)> = (0..3).map(|_| deal.after(WINDOW, Duration::ZERO)).collect();
        let all = |number| after.contains(&(Seat { duty: Duty::All, number }, HOME));
        assert!((0..WORKERS).all(all), "{after:?}");
    }

    #[tokio::test]
    async fn a_crowd_is_for_all_of_its_workers_if_one_does_not_keep_up() {
        let mut deal = Deal::new(false);
        deal.counts(100, Duration::ZERO);
        assert_eq!(crowds(deal.counts(300, BEHIND)), [100, 100, 100]);
        assert_eq!(deal.after(SOON, BEHIND).1, BESIDE, "who accepts is the same");
        assert_eq!(crowds(deal.counts(300, BEHIND / 2)), [0, 300, 0]);
    }

    #[tokio::test]
    async fn a_crowd_is_for_all_of_its_workers_if_one_has_much_more_than_another() {
        let mut deal = Deal::new(false);
        deal.counts(100, Duration::ZERO);
        let next = |deal: &mut Deal| crowds(deal.counts(30, Duration::ZERO));
        deal.hold(HOME.number, AHEAD);
        assert_eq!(next(&mut deal), [0, 30, 0]);
        deal.hold(HOME.number, 1);
        assert_eq!(next(&mut deal), [10, 10, 10]);
        deal.hold(0, 100);
        assert_eq!(next(&mut deal), [10, 10, 10], "the third has none");
        deal.hold(2, 100);
        assert_eq!(next(&mut deal), [0, 30, 0]);
        deal.hold(HOME.number, 111);
        assert_eq!(next(&mut deal), [0, 30, 0], "an eighth more is not much");
        deal.hold(HOME.number, 1);
        assert_eq!(next(&mut deal), [10, 10, 10]);
    }

    #[tokio::test]
    async fn tunnels_are_dealt_in_turn_however_many_come() {
        let mut deal = Deal::new(true);
        assert_eq!(deal.counts(300, Duration::ZERO), [[100; WORKERS], [0; WORKERS]]);
    }
}
