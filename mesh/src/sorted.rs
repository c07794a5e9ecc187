//! A small map that is read often and changed hardly ever, such as the ports of a service.
//!
//! Invariant: sorted by key, each key once, and no room to spare: a mesh has hundreds of thousands of these, most of them
//! with a single entry, and most equal to others. A clone is the same slice, until one of them is changed.

use std::fmt;
use std::ops::Index;
use std::sync::Arc;

/// A map in one sorted slice.
#[derive(PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct SortedMap<K, V>(Arc<[(K, V)]>);

impl<K, V> Clone for SortedMap<K, V> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<K, V> Default for SortedMap<K, V> {
    fn default() -> Self {
        Self::new()
    }
}

impl<K, V> SortedMap<K, V> {
    /// An empty map.
    pub fn new() -> Self {
        Self(Arc::default())
    }

    /// Whether somebody else has the same slice.
    pub(crate) fn is_shared(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }

    /// How many entries there are.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The entries, by key.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = (&K, &V)> + ExactSizeIterator + Clone {
        self.0.iter().map(|(key, value)| (key, value))
    }

    /// The keys in their order.
    pub fn keys(&self) -> impl DoubleEndedIterator<Item = &K> + ExactSizeIterator + Clone {
        self.0.iter().map(|(key, _)| key)
    }

    /// The values in the order of their keys.
    pub fn values(&self) -> impl DoubleEndedIterator<Item = &V> + ExactSizeIterator + Clone {
        self.0.iter().map(|(_, value)| value)
    }
}

impl<K: Ord, V> SortedMap<K, V> {
    /// The value of a key.
    pub fn get(&self, key: &K) -> Option<&V> {
        let at = self.0.binary_search_by(|(other, _)| other.cmp(key)).ok()?;
        self.0.get(at).map(|(_, value)| value)
    }

    /// Whether there is a value of this key.
    pub fn contains_key(&self, key: &K) -> bool {
        self.get(key).is_some()
    }
}

impl<K: Ord + Clone, V: Clone> SortedMap<K, V> {
    /// Sets the value of a key, and returns the one it had. Copies the map if the key is new, or somebody else has the map.
    pub fn insert(&mut self, key: K, value: V) -> Option<V> {
        match self.0.binary_search_by(|(other, _)| other.cmp(&key)) {
            Ok(at) => Arc::make_mut(&mut self.0).get_mut(at).map(|(_, old)| std::mem::replace(old, value)),
            Err(at) => {
                let mut entries = self.0.to_vec();
                entries.insert(at, (key, value));
                self.0 = entries.into();
                None
            }
        }
    }
}

impl<K: Ord + Clone, V: Clone + Default> SortedMap<K, V> {
    /// Changes the value of a key, which is the default one if it has none.
    pub fn update(&mut self, key: K, change: impl FnOnce(&mut V)) {
        let mut value = self.get(&key).cloned().unwrap_or_default();
        change(&mut value);
        self.insert(key, value);
    }
}

/// Of equal keys the last one counts.
impl<K: Ord, V> FromIterator<(K, V)> for SortedMap<K, V> {
    fn from_iter<I: IntoIterator<Item = (K, V)>>(entries: I) -> Self {
        let mut entries: Vec<_> = entries.into_iter().collect();
        // Stable, so that the last of equal keys is the last of its run; it is kept by going backwards.
        entries.sort_by(|(one, _), (other, _)| one.cmp(other));
        entries.reverse();
        entries.dedup_by(|(one, _), (other, _)| one == other);
        entries.reverse();
        Self(entries.into())
    }
}

impl<K: Ord, V, const N: usize> From<[(K, V); N]> for SortedMap<K, V> {
    fn from(entries: [(K, V); N]) -> Self {
        entries.into_iter().collect()
    }
}

impl<K: Ord + Clone, V: Clone> Extend<(K, V)> for SortedMap<K, V> {
    fn extend<I: IntoIterator<Item = (K, V)>>(&mut self, entries: I) {
        *self = self.0.iter().cloned().chain(entries).collect();
    }
}

impl<K: Clone, V: Clone> IntoIterator for SortedMap<K, V> {
    type Item = (K, V);
    type IntoIter = std::vec::IntoIter<(K, V)>;

    #[expect(clippy::unnecessary_to_owned, reason = "the iterator outlives the map")]
    fn into_iter(self) -> Self::IntoIter {
        self.0.to_vec().into_iter()
    }
}

impl<'a, K, V> IntoIterator for &'a SortedMap<K, V> {
    type Item = (&'a K, &'a V);
    type IntoIter = std::iter::Map<std::slice::Iter<'a, (K, V)>, fn(&'a (K, V)) -> (&'a K, &'a V)>;

    fn into_iter(self) -> Self::IntoIter {
        self.0.iter().map(|(key, value)| (key, value))
    }
}

/// For a key that is known to be there.
impl<K: Ord, V> Index<&K> for SortedMap<K, V> {
    type Output = V;

    #[expect(clippy::expect_used, reason = "as with every map: whoever indexes says that it is there")]
    fn index(&self, key: &K) -> &V {
        self.get(key).expect("no entry for the key")
    }
}

impl<K: fmt::Debug, V: fmt::Debug> fmt::Debug for SortedMap<K, V> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_map().entries(self.0.iter().map(|(key, value)| (key, value))).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_map(entries in prop::collection::vec((0_u8..16, any::<u8>()), 0..40), more in (0_u8..16, any::<u8>())) {
            let mut expected: BTreeMap<u8, u8> = entries.iter().copied().collect();
            let mut map: SortedMap<u8, u8> = entries.iter().copied().collect();
            prop_assert_eq!(map.insert(more.0, more.1), expected.insert(more.0, more.1));
            map.extend(entries.iter().copied());
            expected.extend(entries.iter().copied());
            map.update(more.0, |value| *value = value.wrapping_add(1));
            *expected.entry(more.0).or_default() = expected.get(&more.0).copied().unwrap_or_default().wrapping_add(1);
            prop_assert!(map.iter().eq(expected.iter()));
            for key in 0..16 {
                prop_assert_eq!(map.get(&key), expected.get(&key));
            }
        }
    }
}
