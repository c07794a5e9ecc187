//! How long nearly all new connections of a workload took to come about, between two looks.

use std::collections::BTreeMap;
use std::time::Duration;

use super::rates::Key;
use crate::admin_socket::protocol::ConnectTimesRow;

/// Of a hundred connections so many took no longer.
const PERCENT: u64 = 99;

/// What was counted until one moment, by the microseconds that were not exceeded.
#[derive(Clone, Debug, Default)]
pub(super) struct Times(BTreeMap<Key, BTreeMap<u64, u32>>);

impl Times {
    /// From an agent's answer.
    pub(super) fn of(rows: impl IntoIterator<Item = ConnectTimesRow>) -> Self {
        let entry = |row: ConnectTimesRow| {
            let way = if row.direction == "outbound" { "out" } else { "in" };
            let key = Key { workload: format!("{}/{}", row.namespace, row.workload), way };
            (key, row.counts.into_iter().collect())
        };
        Self(rows.into_iter().map(entry).collect())
    }

    /// The time within which 99 of 100 connections came about that were counted after `before`; none if there were none. What an agent
    /// that has begun anew counts is less than before, and is taken as it is.
    pub(super) fn since(&self, before: &Self, key: &Key) -> Option<Duration> {
        let now = self.0.get(key)?;
        let before = before.0.get(key);
        let counted = |(bound, count): (&u64, &u32)| {
            let known = before.and_then(|before| before.get(bound)).copied().unwrap_or_default();
            (*bound, u64::from(count.checked_sub(known).unwrap_or(*count)))
        };
        let counts: Vec<(u64, u64)> = now.iter().map(counted).collect();
        let all: u64 = counts.iter().map(|(_, count)| count).sum();
        let nearly_all = (all * PERCENT).div_ceil(100).max(1);
        let mut sum = 0;
        let reached = counts.iter().find(|(_, count)| {
            sum += count;
            sum >= nearly_all
        });
        reached.map(|(bound, _)| Duration::from_micros(*bound))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn times(counts: &[(u64, u32)]) -> Times {
        Times::of([ConnectTimesRow {
            namespace: "demo".into(),
            workload: "web".into(),
            direction: "inbound".into(),
            counts: counts.to_vec(),
        }])
    }

    #[test]
    fn one_in_a_hundred_may_take_longer() {
        let key = Key { workload: "demo/web".into(), way: "in" };
        let none = Times::default();
        let of =
            |now: &[(u64, u32)], before: &Times| times(now).since(before, &key).map(|time| time.as_micros());
        assert_eq!(of(&[], &none), None);
        assert_eq!(of(&[(40, 1)], &none), Some(40));
        assert_eq!(of(&[(40, 99), (1000, 1)], &none), Some(40));
        assert_eq!(of(&[(40, 98), (1000, 2)], &none), Some(1000));
        assert_eq!(of(&[(40, 98), (1000, 1), (5000, 1)], &none), Some(1000));
        // What was counted before does not count.
        let before = times(&[(40, 90), (1000, 1)]);
        assert_eq!(of(&[(40, 90), (1000, 1)], &before), None);
        assert_eq!(of(&[(40, 95), (1000, 2)], &before), Some(1000));
        assert_eq!(of(&[(40, 3)], &before), Some(40), "an agent that was started anew");
        assert_eq!(times(&[(40, 1)]).since(&none, &Key { way: "out", ..key.clone() }), None);
    }
}
