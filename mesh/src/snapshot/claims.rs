//! Several resources that claim one key.
//!
//! Invariant: sorted, the preferred one first, and the order does not depend on the order of arrival.

use std::sync::Arc;

use crate::service::Service;
use crate::workload::{Protocol, Workload};

/// A resource that may share a key with others of its kind.
pub(super) trait Claimant {
    /// Less is preferred. Unique to the resource, so that the order is total.
    fn rank(&self) -> (bool, bool, &str, &str);
}

impl Claimant for Workload {
    fn rank(&self) -> (bool, bool, &str, &str) {
        (!self.is_pod(), self.protocol != Protocol::Hbone, &self.uid, "")
    }
}

impl Claimant for Service {
    fn rank(&self) -> (bool, bool, &str, &str) {
        (!self.canonical, false, &self.namespace, &self.hostname)
    }
}

/// The resources that claim one key. Almost always a single one.
#[derive(Debug)]
pub(super) struct Claims<T>(Vec<Arc<T>>);

impl<T> Clone for Claims<T> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<T> Default for Claims<T> {
    fn default() -> Self {
        Self(Vec::new())
    }
}

impl<T: Claimant> Claims<T> {
    pub(super) fn first(&self) -> Option<&Arc<T>> {
        self.0.first()
    }

    pub(super) fn iter(&self) -> std::slice::Iter<'_, Arc<T>> {
        self.0.iter()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds a claim; one of equal rank is the same resource and gives way.
    pub(super) fn insert(&mut self, claimant: Arc<T>) {
        match self.0.binary_search_by(|other| other.rank().cmp(&claimant.rank())) {
            Ok(at) => {
                if let Some(slot) = self.0.get_mut(at) {
                    *slot = claimant;
                }
            }
            Err(at) => self.0.insert(at, claimant),
        }
    }

    pub(super) fn remove(&mut self, claimant: &T) {
        self.0.retain(|other| other.rank() != claimant.rank());
    }
}
