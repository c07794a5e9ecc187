//! Resources by address, in a table that shares structure with the ones it was made from.
//!
//! Two levels of branches lead to shards, and a shard is one array of slots that hold the address itself: what is looked for is
//! where its hash says or close behind (linear probing), so that a look-up leaves the branches, which are small enough to stay in
//! the caches, for one line of memory; and most keys that are not there are told by the branches alone, as an address of a range
//! is, which is no address of its own. A change copies the two branches on its way and one shard; all else is shared. Several
//! resources may have one key. Invariants: between where a slot's hash says and where it is no slot is empty; at least a third
//! of a shard is; a branch has the marks of what is in its shards, and no others.

use std::hash::BuildHasher as _;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use foldhash::fast::RandomState;

/// Branches of a level.
const FAN: usize = 32;
/// Bits of a hash that name a branch. The lower half of the hash is used within a shard.
const BITS: u32 = FAN.trailing_zeros();
const FIRST: u32 = 40;

/// What resources are found by: small, and compared as it is.
pub(super) trait Key: Copy + Eq {
    fn hash(self, state: &RandomState) -> u64;
}

impl Key for Ipv4Addr {
    fn hash(self, state: &RandomState) -> u64 {
        state.hash_one(self.to_bits())
    }
}

impl Key for Ipv6Addr {
    fn hash(self, state: &RandomState) -> u64 {
        state.hash_one(self.to_bits())
    }
}

/// A range: its first address, and how long its prefix is. As one number it is hashed in one step.
impl Key for (Ipv4Addr, u8) {
    fn hash(self, state: &RandomState) -> u64 {
        state.hash_one((u64::from(self.0.to_bits()) << u8::BITS) | u64::from(self.1))
    }
}

impl Key for (Ipv6Addr, u8) {
    fn hash(self, state: &RandomState) -> u64 {
        state.hash_one((self.0.to_bits(), self.1))
    }
}

/// A resource and its key. Whether everybody may find it is stored too, so that a look-up need not go to the resource.
pub(super) struct Slot<K, T> {
    pub(super) of: Arc<T>,
    key: K,
    pub(super) is_public: bool,
}

impl<K: Copy, T> Clone for Slot<K, T> {
    fn clone(&self) -> Self {
        Self { of: Arc::clone(&self.of), key: self.key, is_public: self.is_public }
    }
}

type Shard<K, T> = Arc<[Option<Slot<K, T>>]>;
type Branch<K, T> = Arc<[Leaf<K, T>; FAN]>;

/// A shard, and what tells of most keys that they are not in it, without a look into it.
struct Leaf<K, T> {
    shard: Shard<K, T>,
    /// The [`mark`]s of the hashes of all that is in the shard.
    marks: u64,
}

impl<K, T> Clone for Leaf<K, T> {
    fn clone(&self) -> Self {
        Self { shard: Arc::clone(&self.shard), marks: self.marks }
    }
}

/// A persistent table of resources by key.
pub(super) struct Slots<K, T> {
    root: Arc<[Branch<K, T>; FAN]>,
    len: usize,
    state: RandomState,
}

impl<K, T> Clone for Slots<K, T> {
    fn clone(&self) -> Self {
        Self { root: Arc::clone(&self.root), len: self.len, state: self.state.clone() }
    }
}

impl<K, T> Default for Slots<K, T> {
    fn default() -> Self {
        let leaf = Leaf { shard: Arc::new([]), marks: 0 };
        let branch = Arc::new(std::array::from_fn(|_| leaf.clone()));
        let root = Arc::new(std::array::from_fn(|_| Arc::clone(&branch)));
        Self { root, len: 0, state: RandomState::default() }
    }
}

impl<K: Key, T> Slots<K, T> {
    pub(super) fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// What is there of a key, in no order.
    pub(super) fn matching(&self, key: K) -> impl Iterator<Item = &Slot<K, T>> {
        let hash = key.hash(&self.state);
        let leaf = self.root.get(branch(hash, 0)).and_then(|of| of.get(branch(hash, 1)));
        let shard = leaf.filter(|leaf| leaf.marks & mark(hash) != 0).map_or(&[][..], |leaf| &*leaf.shard);
        let (before, from) = shard.split_at_checked(home(hash, shard.len())).unwrap_or_default();
        let run = from.iter().chain(before).map_while(Option::as_ref);
        run.filter(move |slot| slot.key == key)
    }

    /// Adds a resource, whether or not there are others of its key.
    pub(super) fn insert(&mut self, key: K, is_public: bool, of: Arc<T>) {
        let (hash, state) = (key.hash(&self.state), self.state.clone());
        let Some(Leaf { shard, marks }) = self.leaf(hash) else { return };
        make_room(shard, &state);
        put(Arc::make_mut(shard), hash, Slot { of, key, is_public });
        *marks |= mark(hash);
        self.len += 1;
    }

    /// Takes a resource of a key out.
    pub(super) fn remove(&mut self, key: K, of: &Arc<T>) {
        // Looked for first, so that a shard without it is not copied.
        if !self.matching(key).any(|slot| Arc::ptr_eq(&slot.of, of)) {
            return;
        }
        let (hash, state) = (key.hash(&self.state), self.state.clone());
        let Some(Leaf { shard, marks }) = self.leaf(hash) else { return };
        take(Arc::make_mut(shard), hash, &state, |slot| slot.key == key && Arc::ptr_eq(&slot.of, of));
        give_room_back(shard, &state);
        *marks = shard.iter().flatten().fold(0, |marks, slot| marks | mark(slot.key.hash(&state)));
        self.len -= 1;
    }

    /// The shard of a hash, to be changed; it may be shared itself.
    fn leaf(&mut self, hash: u64) -> Option<&mut Leaf<K, T>> {
        Arc::make_mut(Arc::make_mut(&mut self.root).get_mut(branch(hash, 0))?).get_mut(branch(hash, 1))
    }
}

/// Which branch a hash takes at a level.
fn branch(hash: u64, level: u32) -> usize {
    usize::try_from(hash >> (FIRST + level * BITS)).unwrap_or_default() % FAN
}

/// One bit, by bits of a hash that name neither branches nor slots.
fn mark(hash: u64) -> u64 {
    1 << ((hash >> 32) % u64::from(u64::BITS))
}

/// Where of so many slots a hash would be: its lower half as a fraction of them.
fn home(hash: u64, slots: usize) -> usize {
    let slots = u64::try_from(slots).unwrap_or_default();
    usize::try_from(((hash & u64::from(u32::MAX)) * slots) >> 32).unwrap_or_default()
}

/// Makes sure that one more fits without filling more than two thirds.
fn make_room<K: Key, T>(shard: &mut Shard<K, T>, state: &RandomState) {
    let used = shard.iter().flatten().count();
    if (used + 1) * 3 > shard.len() * 2 {
        resize(shard, (used + 1) * 9 / 4, state);
    }
}

/// Makes a shard smaller that is nearly empty.
fn give_room_back<K: Key, T>(shard: &mut Shard<K, T>, state: &RandomState) {
    let used = shard.iter().flatten().count();
    if used * 6 < shard.len() {
        resize(shard, used * 9 / 4, state);
    }
}

/// Puts everything into so many slots.
fn resize<K: Key, T>(shard: &mut Shard<K, T>, slots: usize, state: &RandomState) {
    let mut larger: Shard<K, T> = (0..slots).map(|_| None).collect();
    if let Some(to) = Arc::get_mut(&mut larger) {
        match Arc::get_mut(shard) {
            Some(own) => {
                own.iter_mut().filter_map(Option::take).for_each(|slot| put(to, slot.key.hash(state), slot))
            }
            None => shard.iter().flatten().for_each(|slot| put(to, slot.key.hash(state), slot.clone())),
        }
    }
    *shard = larger;
}

/// Puts something into the first free slot from where its hash says.
fn put<K, T>(slots: &mut [Option<Slot<K, T>>], hash: u64, slot: Slot<K, T>) {
    let (before, from) = slots.split_at_mut(home(hash, slots.len()));
    if let Some(free) = from.iter_mut().chain(before).find(|slot| slot.is_none()) {
        *free = Some(slot);
    }
}

/// Takes something out, and moves what is behind it closer to where it belongs.
fn take<K: Key, T>(
    slots: &mut [Option<Slot<K, T>>],
    hash: u64,
    state: &RandomState,
    is_it: impl Fn(&Slot<K, T>) -> bool,
) {
    let count = slots.len();
    // How far a slot is behind another one.
    let behind = |at: usize, other: usize| (at + count - other) % count;
    let start = home(hash, count);
    let run = (0..count).map(|step| (start + step) % count);
    let Some(mut hole) =
        run.into_iter().find(|at| slots.get(*at).and_then(Option::as_ref).is_some_and(&is_it))
    else {
        return;
    };
    if let Some(slot) = slots.get_mut(hole) {
        *slot = None;
    }
    for step in 1..count {
        let at = (start + step) % count;
        if behind(at, start) <= behind(hole, start) {
            continue;
        }
        let Some(Some(slot)) = slots.get(at) else { break };
        if behind(at, home(slot.key.hash(state), count)) >= behind(at, hole) {
            slots.swap(at, hole);
            hole = at;
        }
    }
}

#[cfg(test)]
mod tests;
