//! Somebody who takes our entry out of the configuration again and again.
//!
//! It is put back each time, at first at once, then less often, so that two who fight do not wear the node out; and it is told
//! what to do about it. Pure: time is given.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// What counts.
const WINDOW: Duration = Duration::from_secs(60);
/// Repairs within it that are no accident.
const FIGHT: usize = 3;
/// Repairs within it that are made at once.
const AT_ONCE: usize = 5;
/// The wait before the first repair that is not, and the longest; each is twice the one before.
const FIRST_WAIT: Duration = Duration::from_millis(250);
const LONGEST_WAIT: Duration = Duration::from_secs(5);

/// The repairs of the last minute.
#[derive(Debug, Default)]
pub(crate) struct Fight {
    repairs: VecDeque<Instant>,
    told: Option<Instant>,
}

impl Fight {
    /// Notes a repair; says how many there were lately if that is to be told now.
    pub(crate) fn repaired(&mut self, now: Instant) -> Option<usize> {
        self.forget(now);
        self.repairs.push_back(now);
        let is_new = self.told.is_none_or(|told| now.duration_since(told) >= WINDOW);
        if self.repairs.len() < FIGHT || !is_new {
            return None;
        }
        self.told = Some(now);
        Some(self.repairs.len())
    }

    /// How long to wait before the next look.
    pub(crate) fn wait(&mut self, now: Instant) -> Duration {
        self.forget(now);
        let Some(doublings) = self.repairs.len().checked_sub(AT_ONCE) else { return Duration::ZERO };
        let doublings = u32::try_from(doublings).unwrap_or(u32::MAX).min(16);
        FIRST_WAIT.saturating_mul(1 << doublings).min(LONGEST_WAIT)
    }

    fn forget(&mut self, now: Instant) {
        while self.repairs.front().is_some_and(|at| now.duration_since(*at) >= WINDOW) {
            self.repairs.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_repair_is_an_accident_three_are_told_once_a_minute() {
        let (mut fight, start) = (Fight::default(), Instant::now());
        let at = |seconds| start + Duration::from_secs(seconds);
        assert_eq!(
            [0, 1, 2, 3, 20].map(|second| fight.repaired(at(second))),
            [None, None, Some(3), None, None]
        );
        assert_eq!(fight.repaired(at(62)), Some(3), "those of more than a minute ago do not count");
        assert_eq!(fight.repaired(at(200)), None, "it was peace for a while");
    }

    #[test]
    fn the_waits_grow_to_their_limit_and_end_with_the_fight() {
        let (mut fight, start) = (Fight::default(), Instant::now());
        let mut waits = Vec::new();
        for _ in 0..12 {
            waits.push(fight.wait(start).as_millis());
            fight.repaired(start);
        }
        assert_eq!(waits, [0, 0, 0, 0, 0, 250, 500, 1000, 2000, 4000, 5000, 5000]);
        assert_eq!(fight.wait(start + WINDOW), Duration::ZERO);
    }
}
