//! How many come, and whether that is a crowd.

use std::time::{Duration, Instant};

/// For so long they are counted.
pub(crate) const WINDOW: Duration = Duration::from_millis(50);
/// With so many in a window they are a crowd.
pub(crate) const CROWD: u32 = 64;

/// A count of what comes.
#[derive(Debug)]
pub(crate) struct Pace {
    /// So many are a crowd.
    limit: u32,
    /// The beginning of the window.
    since: Instant,
    count: u32,
    /// Of the window before.
    before: u32,
}

impl Pace {
    pub(crate) const fn new(now: Instant) -> Self {
        Self::of(CROWD, now)
    }

    /// One by which so many in a window are a crowd.
    pub(crate) const fn of(limit: u32, now: Instant) -> Self {
        Self { limit, since: now, count: 0, before: 0 }
    }

    /// Whether one that comes now is one of a crowd.
    pub(crate) fn enter(&mut self, now: Instant) -> bool {
        let passed = now.saturating_duration_since(self.since);
        if passed >= WINDOW {
            let before = if passed < WINDOW * 2 { self.count } else { 0 };
            *self = Self { before, ..Self::of(self.limit, now) };
        }
        self.count = self.count.saturating_add(1);
        self.count.max(self.before) >= self.limit
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Of so many that come after one another, in so much time each, how many are of a crowd.
    fn crowd(pace: &mut Pace, now: &mut Instant, number: u32, each: Duration) -> usize {
        let mut enter = || {
            *now += each;
            pace.enter(*now)
        };
        (0..number).filter(|_| enter()).count()
    }

    #[test]
    fn a_crowd_is_one_as_soon_as_it_has_come_and_for_a_window_more() {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        let soon = Duration::from_micros(500);
        assert_eq!(crowd(&mut pace, &mut now, 99, soon), 99 - (CROWD as usize - 1));
        // Each window begins with less than a crowd, after one that had it.
        assert_eq!(crowd(&mut pace, &mut now, 1000, soon), 1000);
        // The window before still counts, the one before that does not.
        assert_eq!(crowd(&mut pace, &mut now, 3, WINDOW), 1);
    }

    #[test]
    fn a_thousand_a_second_are_none() {
        let mut now = Instant::now();
        let mut pace = Pace::new(now);
        assert_eq!(crowd(&mut pace, &mut now, 3000, Duration::from_millis(1)), 0);
    }
}
