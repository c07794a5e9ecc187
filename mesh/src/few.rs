//! A list that most often has one entry, such as the addresses of a pod: that one is not put elsewhere.
//!
//! Invariant: a list of one is always kept as such, so that equal lists are kept alike.

use std::fmt;
use std::hash::{Hash, Hasher};
use std::ops::Deref;

/// A list that is made once and read often, as a slice.
#[derive(Clone)]
pub struct Few<T>(Kept<T>);

#[derive(Clone)]
enum Kept<T> {
    One(T),
    Other(Box<[T]>),
}

impl<T> Few<T> {
    /// An empty list.
    pub fn new() -> Self {
        Self(Kept::Other(Box::default()))
    }
}

impl<T> Deref for Few<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        match &self.0 {
            Kept::One(one) => std::slice::from_ref(one),
            Kept::Other(all) => all,
        }
    }
}

impl<T> Default for Few<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> FromIterator<T> for Few<T> {
    fn from_iter<I: IntoIterator<Item = T>>(entries: I) -> Self {
        let mut entries = entries.into_iter();
        match (entries.next(), entries.next()) {
            (None, _) => Self::new(),
            (Some(one), None) => Self(Kept::One(one)),
            (Some(one), Some(two)) => Self(Kept::Other([one, two].into_iter().chain(entries).collect())),
        }
    }
}

impl<T> From<Vec<T>> for Few<T> {
    fn from(entries: Vec<T>) -> Self {
        entries.into_iter().collect()
    }
}

impl<T, const N: usize> From<[T; N]> for Few<T> {
    fn from(entries: [T; N]) -> Self {
        entries.into_iter().collect()
    }
}

impl<'a, T> IntoIterator for &'a Few<T> {
    type Item = &'a T;
    type IntoIter = std::slice::Iter<'a, T>;

    fn into_iter(self) -> Self::IntoIter {
        self.iter()
    }
}

impl<T: PartialEq> PartialEq for Few<T> {
    fn eq(&self, other: &Self) -> bool {
        **self == **other
    }
}

impl<T: Eq> Eq for Few<T> {}

impl<T: Hash> Hash for Few<T> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        (**self).hash(state);
    }
}

impl<T: fmt::Debug> fmt::Debug for Few<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        (**self).fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_a_list() {
        for length in 0..5_u8 {
            let entries: Vec<u8> = (0..length).collect();
            let few = Few::from(entries.clone());
            assert_eq!(*few, entries);
            assert_eq!(few, entries.into_iter().collect());
        }
        assert_ne!(Few::from([1]), Few::from([2]));
        assert_eq!(size_of::<Few<std::net::IpAddr>>(), 24);
    }
}
