//! What the snapshot's tables hold, and by which key.
//!
//! Where the key is part of the resource it is not stored again.

use std::borrow::Borrow;
use std::cmp::Ordering;
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use imbl::OrdSet;

use super::table::Entry;
use crate::address::NamespacedHostname;
use crate::service::Service;
use crate::workload::Workload;

/// A workload by its uid.
#[derive(Clone)]
pub(super) struct ByUid(pub(super) Arc<Workload>);

/// A workload by namespace and name.
#[derive(Clone)]
pub(super) struct ByPod(pub(super) Arc<Workload>);

/// A resource by its hostname, whatever the case of its letters.
pub(super) struct ByHostname<T>(pub(super) Arc<T>);

/// A service by namespace and hostname.
#[derive(Clone)]
pub(super) struct ByName(pub(super) Arc<Service>);

impl<T> Clone for ByHostname<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

/// The workloads that serve a service.
#[derive(Clone)]
pub(super) struct Members {
    pub(super) service: NamespacedHostname,
    pub(super) workloads: OrdSet<Member>,
}

/// A workload among others, in the order of their uids.
#[derive(Clone, Debug)]
pub(super) struct Member(pub(super) Arc<Workload>);

impl Borrow<str> for Member {
    fn borrow(&self) -> &str {
        &self.0.uid
    }
}

impl Ord for Member {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.uid.cmp(&other.0.uid)
    }
}

impl PartialOrd for Member {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Member {
    fn eq(&self, other: &Self) -> bool {
        self.0.uid == other.0.uid
    }
}

impl Eq for Member {}

/// A hostname that hashes and compares without regard to the case of its letters (RFC 4343).
#[derive(Clone, Copy)]
pub(super) struct Folded<'a>(pub(super) &'a str);

impl Hash for Folded<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.0.bytes().for_each(|byte| state.write_u8(byte.to_ascii_lowercase()));
    }
}

impl PartialEq for Folded<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.0.eq_ignore_ascii_case(other.0)
    }
}

/// What has a hostname.
pub(super) trait Hosted {
    fn hostname(&self) -> &str;
}

impl Hosted for Workload {
    fn hostname(&self) -> &str {
        &self.hostname
    }
}

impl Hosted for Service {
    fn hostname(&self) -> &str {
        &self.hostname
    }
}

/// The key of a service.
pub(super) fn name(key: &NamespacedHostname) -> (&str, &str) {
    (&key.namespace, &key.hostname)
}

impl Entry for ByUid {
    fn key(&self) -> impl Hash {
        &*self.0.uid
    }
}

impl Entry for ByPod {
    fn key(&self) -> impl Hash {
        (&*self.0.namespace, &*self.0.name)
    }
}

impl<T: Hosted> Entry for ByHostname<T> {
    fn key(&self) -> impl Hash {
        Folded(self.0.hostname())
    }
}

impl Entry for ByName {
    fn key(&self) -> impl Hash {
        (&*self.0.namespace, &*self.0.hostname)
    }
}

impl Entry for Members {
    fn key(&self) -> impl Hash {
        name(&self.service)
    }
}
