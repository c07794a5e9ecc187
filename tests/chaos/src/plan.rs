//! What fails when: made of a seed and a length, and of nothing else.
//!
//! Invariant: every kind of fault comes once in each round, no two spoil the same place at once, and all are over at the end.

use std::time::Duration;

use crate::chance::Chance;
use crate::fault::Fault;

/// Nodes of the world.
const NODES: u64 = 2;
/// From the beginning of one fault to that of the next, in milliseconds.
const PAUSE: (u64, u64) = (2_000, 6_000);
/// How long one lasts, in milliseconds.
const LENGTH: (u64, u64) = (1_000, 8_000);
/// How far a clock is set, in seconds: certificates live for much less.
const HOUR: i16 = 3600;
/// Kinds of faults.
const KINDS: usize = 12;

/// One fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Turn {
    /// When it begins, from the storm's beginning.
    pub begins: Duration,
    /// When it is over.
    pub ends: Duration,
    /// What it is.
    pub fault: Fault,
}

/// The turns of a storm, by their beginnings.
pub fn plan(seed: u64, length: Duration) -> Vec<Turn> {
    let mut chance = Chance::new(seed);
    let (mut turns, mut round, mut now) = (Vec::<Turn>::new(), Vec::new(), 0);
    loop {
        now += chance.between(PAUSE.0, PAUSE.1);
        let lasts = chance.between(LENGTH.0, LENGTH.1);
        if round.is_empty() {
            round = all_kinds(&mut chance);
        }
        let Some(fault) = round.pop() else { return turns };
        // One that would fall together with another waits for it.
        let busy =
            turns.iter().filter(|turn| turn.fault.place() == fault.place()).map(|turn| turn.ends).max();
        let begins = busy.unwrap_or_default().max(Duration::from_millis(now));
        let ends = begins + Duration::from_millis(lasts);
        if ends > length {
            turns.sort_by_key(|turn| turn.begins);
            return turns;
        }
        turns.push(Turn { begins, ends, fault });
    }
}

/// One fault of each kind, somewhere, in any order.
fn all_kinds(chance: &mut Chance) -> Vec<Fault> {
    let mut kinds: Vec<usize> = (0..KINDS).collect();
    chance.shuffle(&mut kinds);
    kinds.into_iter().map(|kind| of_kind(kind, chance)).collect()
}

fn of_kind(kind: usize, chance: &mut Chance) -> Fault {
    let node = usize::from(chance.between(0, NODES) == 1);
    let mut rate = |low, high| u16::try_from(chance.between(low, high)).unwrap_or_default();
    match kind {
        0 => Fault::AgentKilled(node),
        1 => Fault::AgentReplaced(node),
        2 => Fault::PlaneKilled,
        3 => Fault::AuthorityKilled,
        4 => Fault::LinkDown(node),
        5 => Fault::Lost(node, rate(10, 200)),
        6 => Fault::Doubled(node, rate(50, 500)),
        7 => Fault::Reordered(node, rate(50, 300)),
        8 => Fault::SmallPackets(node, rate(1280, 1450)),
        9 => Fault::NamespaceGone,
        10 => Fault::DiskFull(node),
        _ => Fault::ClockSet(node, if chance.between(0, 2) == 1 { HOUR } else { -HOUR }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LENGTH: Duration = Duration::from_secs(120);

    #[test]
    fn a_seed_is_a_storm() {
        assert_eq!(plan(7, LENGTH), plan(7, LENGTH));
        assert_ne!(plan(7, LENGTH), plan(8, LENGTH));
    }

    #[test]
    fn every_kind_comes_and_all_are_over_in_time() {
        for seed in 0..50 {
            let turns = plan(seed, LENGTH);
            let kinds = turns.iter().map(|turn| std::mem::discriminant(&turn.fault));
            let kinds: std::collections::HashSet<_> = kinds.collect();
            assert_eq!(kinds.len(), KINDS, "seed {seed}: {turns:?}");
            assert!(turns.iter().all(|turn| turn.begins < turn.ends && turn.ends <= LENGTH));
            assert!(turns.is_sorted_by_key(|turn| turn.begins));
        }
    }

    #[test]
    fn no_two_spoil_the_same_at_once() {
        for seed in 0..50 {
            let turns = plan(seed, Duration::from_secs(600));
            for (number, one) in turns.iter().enumerate() {
                for other in &turns[..number] {
                    let apart = one.begins >= other.ends || other.begins >= one.ends;
                    assert!(
                        apart || one.fault.place() != other.fault.place(),
                        "seed {seed}: {one:?} {other:?}"
                    );
                }
            }
        }
    }
}
