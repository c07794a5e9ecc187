//! Takes responses over into the store.
//!
//! Invariants: all responses that are given are published as one snapshot, or none where nothing changed; a resource that
//! equals what is there is left untouched, so whoever compares by pointer sees no change where there is none; the cost is in
//! proportion to what came. Within a response removals come before additions. This is work, not waiting: it belongs on a
//! thread of its own.

use std::sync::Arc;

use mesh::{SnapshotEditor, Store};

use super::decode::{self, Address, DecodeError};
use super::kind::Kind;
use super::session::{Accepted, Outcome, Rejected};
use super::version::Version;
use crate::proto::discovery::{DeltaDiscoveryResponse, Resource};

/// What became of some responses.
#[derive(Debug)]
pub(super) struct Applied {
    /// One for each response, in their order.
    pub(super) outcomes: Vec<Outcome>,
    /// Whether there is a new snapshot.
    pub(super) changed: bool,
}

/// Takes responses over, in their order.
pub(super) fn apply(store: &Store, responses: Vec<(Kind, DeltaDiscoveryResponse)>) -> Applied {
    let mut outcomes = Vec::with_capacity(responses.len());
    let changed = store.update(|current| {
        let mut edit = Edit { editor: current.edit(), changed: false };
        outcomes.extend(responses.into_iter().map(|(kind, response)| edit.response(kind, response)));
        edit.changed.then(|| edit.editor.finish())
    });
    Applied { outcomes, changed }
}

struct Edit {
    editor: SnapshotEditor,
    changed: bool,
}

impl Edit {
    fn response(&mut self, kind: Kind, response: DeltaDiscoveryResponse) -> Outcome {
        for name in &response.removed_resources {
            self.changed |= match kind {
                Kind::Address => self.remove_address(name),
                Kind::Authorization => self.editor.remove_policy(name),
            };
        }
        let (mut accepted, mut rejected) = (Vec::with_capacity(response.resources.len()), Vec::new());
        // One at a time, so that what came and what it became are not both there as a whole.
        for resource in response.resources {
            let taken = match kind {
                Kind::Address => self.insert_address(&resource),
                Kind::Authorization => self.insert_policy(&resource),
            };
            match taken {
                Ok(name) => accepted.push(Accepted {
                    name,
                    version: Version::from(resource.version.as_str()),
                    aliases: resource.aliases,
                }),
                Err(error) => rejected.push(Rejected {
                    reason: error.to_string(),
                    name: resource.name,
                    aliases: resource.aliases,
                }),
            }
        }
        Outcome { kind, nonce: response.nonce, accepted, rejected, removed: response.removed_resources }
    }

    /// A name may be that of a workload or of a service.
    fn remove_address(&mut self, name: &str) -> bool {
        self.editor.remove_workload(name)
            || name.parse().is_ok_and(|service| self.editor.remove_service(&service))
    }

    /// Returns the name, as the store has it.
    fn insert_address(&mut self, resource: &Resource) -> Result<Arc<str>, DecodeError> {
        match decode::address(resource)? {
            Address::Workload(workload) => {
                let known = self.editor.snapshot().workload(&workload.uid);
                if let Some(known) = known.filter(|known| ***known == workload) {
                    return Ok(Arc::clone(&known.uid));
                }
                let uid = Arc::clone(&workload.uid);
                self.editor.insert_workload(workload);
                self.changed = true;
                Ok(uid)
            }
            Address::Service(service) => {
                let known = self.editor.snapshot().service(&service.key());
                if known.is_none_or(|known| **known != service) {
                    self.editor.insert_service(service);
                    self.changed = true;
                }
                Ok(resource.name.as_str().into())
            }
        }
    }

    fn insert_policy(&mut self, resource: &Resource) -> Result<Arc<str>, DecodeError> {
        let policy = decode::authorization(resource)?;
        let known = self.editor.snapshot().policy(&resource.name);
        if known.is_none_or(|known| **known != policy) {
            self.editor.insert_policy(policy);
            self.changed = true;
        }
        Ok(resource.name.as_str().into())
    }
}
