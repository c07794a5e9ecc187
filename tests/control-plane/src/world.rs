//! What the control plane knows: the resources, and what changed when.
//!
//! Invariant: a stream that knows the revision it has told of finds what changed since, or is told that it has to
//! look at everything; the log is bounded.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;

use crate::resource::Resource;
use crate::wire::discovery::{ADDRESS, AUTHORIZATION};

/// How many changes are remembered.
const REMEMBERED: usize = 1 << 18;

/// All resources of one type, by name.
pub(crate) type Resources = BTreeMap<String, Arc<Resource>>;

/// The state.
#[derive(Debug, Default)]
pub struct World {
    addresses: Resources,
    policies: Resources,
    revision: u64,
    log: VecDeque<Change>,
    /// The last revision that the log no longer holds.
    forgotten: u64,
}

#[derive(Debug)]
struct Change {
    revision: u64,
    type_url: &'static str,
    name: String,
}

impl World {
    /// Adds a resource, or replaces the one of its name.
    pub fn set(&mut self, resource: impl Into<Resource>) {
        let resource = resource.into();
        self.note(resource.type_url, &resource.name);
        let name = resource.name.clone();
        let resources = match resource.type_url {
            AUTHORIZATION => &mut self.policies,
            _ => &mut self.addresses,
        };
        resources.insert(name, Arc::new(resource));
    }

    /// Removes the resource of a name, of whichever type; tells whether there was one.
    pub fn remove(&mut self, name: &str) -> bool {
        let address = self.addresses.remove(name).is_some();
        let policy = self.policies.remove(name).is_some();
        if address {
            self.note(ADDRESS, name);
        }
        if policy {
            self.note(AUTHORIZATION, name);
        }
        address || policy
    }

    /// Marks everything as changed, so that it is sent again.
    pub fn touch(&mut self) {
        self.revision += 1;
        self.log.clear();
        self.forgotten = self.revision;
    }

    /// All resources of a type; none of one that is not known.
    pub(crate) fn of(&self, type_url: &str) -> Option<&Resources> {
        match type_url {
            ADDRESS => Some(&self.addresses),
            AUTHORIZATION => Some(&self.policies),
            _ => None,
        }
    }

    /// The number of the last change.
    pub fn revision(&self) -> u64 {
        self.revision
    }

    /// The names of a type that changed after a revision, or none if that is too long ago to be known.
    pub fn changed_since(&self, revision: u64, type_url: &str) -> Option<BTreeSet<String>> {
        if revision < self.forgotten {
            return None;
        }
        let from = self.log.partition_point(|change| change.revision <= revision);
        let changes = self.log.range(from..).filter(|change| change.type_url == type_url);
        Some(changes.map(|change| change.name.clone()).collect())
    }

    /// What a key of a client on demand finds: the resource of that name or those of that address, and with a
    /// service its endpoints. Empty if nobody has it.
    pub fn find(&self, key: &str) -> Vec<Arc<Resource>> {
        let mut found: Vec<_> = match self.addresses.get(key) {
            Some(resource) => vec![resource.clone()],
            None => {
                let all = self.addresses.values();
                all.filter(|resource| resource.addresses.iter().any(|own| own == key)).cloned().collect()
            }
        };
        let endpoints: Vec<_> = found.iter().flat_map(|service| self.endpoints(&service.name)).collect();
        found.extend(endpoints);
        found
    }

    /// The workloads behind a service.
    pub fn endpoints<'a>(&'a self, service: &'a str) -> impl Iterator<Item = Arc<Resource>> + 'a {
        let all = self.addresses.values();
        all.filter(move |resource| resource.services.iter().any(|own| own == service)).cloned()
    }

    fn note(&mut self, type_url: &'static str, name: &str) {
        self.revision += 1;
        if self.log.len() >= REMEMBERED
            && let Some(oldest) = self.log.pop_front()
        {
            self.forgotten = oldest.revision;
        }
        self.log.push_back(Change { revision: self.revision, type_url, name: name.to_owned() });
    }
}
