//! A hash table that shares structure with the ones it was made from.
//!
//! Two levels of branches lead to shards, each an ordinary hash table (hashbrown's). A change copies the two branches on its
//! way and one shard, about a thousandth of the entries; all else is shared. A look-up touches no more memory than that of one
//! plain table and two pointers. Entries may have equal keys. Invariant: an entry is in the shard that its own hash names, so
//! what is looked for is in one place.

use std::hash::{BuildHasher, Hash};
use std::sync::Arc;

use foldhash::fast::RandomState;
use hashbrown::HashTable;

/// Branches of a level.
const FAN: usize = 32;
/// Bits of a hash that name a branch. The lowest and the highest ones are used within a shard.
const BITS: u32 = FAN.trailing_zeros();
const FIRST: u32 = 40;

/// Something that has a key to be found by.
pub(super) trait Entry: Clone {
    /// The key, in whatever form it hashes alike.
    fn key(&self) -> impl Hash;
}

type Shard<T> = Arc<HashTable<T>>;
type Branch<T> = Arc<[Shard<T>; FAN]>;

/// A persistent hash table.
#[derive(Clone)]
pub(super) struct Table<T> {
    root: Arc<[Branch<T>; FAN]>,
    len: usize,
    state: RandomState,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        let shard = Arc::new(HashTable::new());
        let branch = Arc::new(std::array::from_fn(|_| Arc::clone(&shard)));
        let root = Arc::new(std::array::from_fn(|_| Arc::clone(&branch)));
        Self { root, len: 0, state: RandomState::default() }
    }
}

impl<T> Table<T> {
    #[cfg(test)]
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// All entries, in no order.
    pub(super) fn iter(&self) -> impl Iterator<Item = &T> {
        self.root.iter().flat_map(|branch| branch.iter()).flat_map(|shard| shard.iter())
    }
}

impl<T: Entry> Table<T> {
    /// The entries of a key, in no order; `same` tells whether one is of it.
    pub(super) fn matching(&self, key: impl Hash, same: impl Fn(&T) -> bool) -> impl Iterator<Item = &T> {
        let hash = self.state.hash_one(key);
        let shard = self.root.get(branch(hash, 0)).and_then(|of| of.get(branch(hash, 1)));
        shard.into_iter().flat_map(move |shard| shard.iter_hash(hash)).filter(move |entry| same(entry))
    }

    /// An entry of a key.
    pub(super) fn get(&self, key: impl Hash, same: impl Fn(&T) -> bool) -> Option<&T> {
        let hash = self.state.hash_one(key);
        self.root.get(branch(hash, 0))?.get(branch(hash, 1))?.find(hash, same)
    }

    /// An entry of a key, to be changed; its key must stay.
    pub(super) fn get_mut(&mut self, key: impl Hash, same: impl Fn(&T) -> bool) -> Option<&mut T> {
        let hash = self.state.hash_one(key);
        self.shard(hash)?.find_mut(hash, same)
    }

    /// Adds an entry, whether or not there are others of its key.
    pub(super) fn insert(&mut self, entry: T) {
        let (hash, state) = (self.state.hash_one(entry.key()), self.state.clone());
        if let Some(shard) = self.shard(hash) {
            shard.insert_unique(hash, entry, |entry| state.hash_one(entry.key()));
            self.len += 1;
        }
    }

    /// Takes an entry of a key out.
    pub(super) fn remove(&mut self, key: impl Hash, same: impl Fn(&T) -> bool) -> Option<T> {
        let hash = self.state.hash_one(key);
        // Looked for first, so that a shard without it is not copied.
        self.root.get(branch(hash, 0))?.get(branch(hash, 1))?.find(hash, &same)?;
        let (entry, _) = self.shard(hash)?.find_entry(hash, same).ok()?.remove();
        self.len -= 1;
        Some(entry)
    }

    /// The shard of a hash, to be changed: copied if it is shared.
    fn shard(&mut self, hash: u64) -> Option<&mut HashTable<T>> {
        let of = Arc::make_mut(&mut self.root).get_mut(branch(hash, 0))?;
        Arc::make_mut(of).get_mut(branch(hash, 1)).map(Arc::make_mut)
    }
}

/// Which branch a hash takes at a level.
fn branch(hash: u64, level: u32) -> usize {
    usize::try_from(hash >> (FIRST + level * BITS)).unwrap_or_default() % FAN
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    #[derive(Clone, Debug, PartialEq)]
    struct Pair(u16, u32);

    impl Entry for Pair {
        fn key(&self) -> impl Hash {
            self.0
        }
    }

    proptest! {
        #[test]
        fn it_holds_what_was_put_in_and_earlier_ones_stay(
            steps in prop::collection::vec((any::<bool>(), 0_u16..300, any::<u32>()), 0..600),
        ) {
            let (mut table, mut expected) = (Table::default(), BTreeMap::<u16, Vec<u32>>::new());
            let mut earlier = Vec::new();
            for (number, (put, key, value)) in steps.into_iter().enumerate() {
                if number % 100 == 0 {
                    earlier.push((table.clone(), expected.clone()));
                }
                if put {
                    table.insert(Pair(key, value));
                    expected.entry(key).or_default().push(value);
                } else if let Some(Pair(_, value)) = table.remove(key, |pair: &Pair| pair.0 == key) {
                    let of = expected.get_mut(&key).unwrap();
                    let at = of.iter().position(|other| *other == value).unwrap();
                    of.swap_remove(at);
                } else {
                    prop_assert!(expected.get(&key).is_none_or(Vec::is_empty));
                }
            }
            earlier.push((table, expected));
            for (table, expected) in earlier {
                prop_assert_eq!(table.len(), expected.values().map(Vec::len).sum::<usize>());
                prop_assert_eq!(table.iter().count(), table.len());
                for (key, mut values) in expected {
                    let mut found: Vec<u32> =
                        table.matching(key, |pair| pair.0 == key).map(|pair| pair.1).collect();
                    found.sort_unstable();
                    values.sort_unstable();
                    prop_assert_eq!(table.get(key, |pair| pair.0 == key).is_some(), !values.is_empty());
                    prop_assert_eq!(found, values);
                }
            }
        }
    }

    #[test]
    fn a_change_copies_one_shard_and_the_way_to_it() {
        let mut table = Table::default();
        (0..20_000_u32).for_each(|value| table.insert(Pair(u16::try_from(value).unwrap(), value)));
        let mut next = table.clone();
        next.insert(Pair(1, 1));
        next.get_mut(2, |pair| pair.0 == 2).unwrap().1 = 7;
        let shards = |table: &Table<Pair>| -> Vec<_> {
            table.root.iter().flat_map(|of| of.iter()).map(Arc::as_ptr).collect()
        };
        let differ = shards(&table).iter().zip(shards(&next)).filter(|(one, other)| **one != *other).count();
        assert!((1..=2).contains(&differ), "{differ} shards were copied");
        let largest = table.root.iter().flat_map(|of| of.iter()).map(|shard| shard.len()).max();
        assert!(largest < Some(100), "one shard has {largest:?} of 20,000");
        assert_eq!(table.get(2, |pair| pair.0 == 2), Some(&Pair(2, 2)));
    }
}
