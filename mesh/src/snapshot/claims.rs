//! Which of several resources that claim one key is preferred.
//!
//! Invariant: the order is total and does not depend on the order of arrival.

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

/// The preferred one. A single claimant, which there is almost always, is not even looked at.
pub(super) fn preferred<'a, T: Claimant>(
    mut claimants: impl Iterator<Item = &'a Arc<T>>,
) -> Option<&'a Arc<T>> {
    let first = claimants.next()?;
    Some(claimants.fold(first, |best, other| if other.rank() < best.rank() { other } else { best }))
}

/// All, the preferred ones first.
pub(super) fn in_order<'a, T: Claimant>(
    claimants: impl Iterator<Item = &'a Arc<T>>,
) -> std::vec::IntoIter<&'a Arc<T>> {
    let mut claimants: Vec<_> = claimants.collect();
    claimants.sort_by(|one, other| one.rank().cmp(&other.rank()));
    claimants.into_iter()
}
