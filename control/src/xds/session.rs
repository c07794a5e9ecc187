//! The state of the subscriptions, without any I/O.
//!
//! What is held survives streams: a new one begins with the name and the version of every resource that is held, so that
//! only what changed comes again. Invariants: the node is told once for each type on a stream; every response with a nonce
//! is answered once, after it was taken over; a response with a resource that could not be taken over is refused with that
//! one's name and the reason. Where nothing of a resource was ever taken over it is not held; where an older version is in
//! force, that one is.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use super::demands::{Demands, Waiter};
use super::kind::Kind;
use super::node::Node;
use super::version::Version;
use crate::proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse, Status};

/// google.rpc.Code: INVALID_ARGUMENT.
const INVALID_ARGUMENT: i32 = 3;
/// How many refused resources are named, and how long the text may be, in bytes.
const NAMED: usize = 10;
const LONGEST: usize = 4096;
/// The most bytes of names and versions in a request: servers of the field read no request that is larger than 4 MiB.
const REQUEST: usize = 3 << 20;
/// The bytes that a name and its version take beside their text, at most.
const OVERHEAD: usize = 16;
/// All resources, where a key at a time is asked for.
const ALL: &str = "*";

/// What became of one response.
#[derive(Debug)]
pub(super) struct Outcome {
    pub(super) kind: Kind,
    pub(super) nonce: String,
    /// What is in force now.
    pub(super) accepted: Vec<Accepted>,
    /// What could not be taken over.
    pub(super) rejected: Vec<Rejected>,
    /// The names that the control plane does not have, or no longer.
    pub(super) removed: Vec<String>,
}

/// A resource that is in force.
#[derive(Debug)]
pub(super) struct Accepted {
    pub(super) name: Arc<str>,
    pub(super) version: Version,
    pub(super) aliases: Vec<String>,
}

/// A resource that could not be taken over.
#[derive(Debug)]
pub(super) struct Rejected {
    pub(super) name: String,
    pub(super) aliases: Vec<String>,
    /// Why, with its name.
    pub(super) reason: String,
}

/// The subscriptions of an agent.
#[derive(Debug)]
pub(super) struct Session {
    node: Node,
    on_demand: bool,
    address: Subscription,
    authorization: Subscription,
    demands: Demands,
}

#[derive(Debug, Default)]
struct Subscription {
    held: HashMap<Arc<str>, Version>,
    /// What is held and could not be told when the present stream began, until its first response.
    untold: HashSet<Arc<str>>,
    /// A response came on the present stream.
    answered: bool,
    /// A response was ever taken over as a whole.
    acknowledged: bool,
}

impl Session {
    pub(super) fn new(node: Node, on_demand: bool, now: Instant) -> Self {
        Self {
            node,
            on_demand,
            address: Subscription::default(),
            authorization: Subscription::default(),
            demands: Demands::new(now),
        }
    }

    /// Begins a stream: the first request for each type, and more where what is held does not fit into one.
    pub(super) fn open(&mut self, now: Instant) -> Vec<DeltaDiscoveryRequest> {
        let pending: Vec<String> = self.demands.open(now).cloned().collect();
        let (mut requests, mut further) = (Vec::new(), Vec::new());
        for kind in Kind::ALL {
            let keyed = self.keyed(kind);
            let node = Some(self.node.message());
            let mut request = DeltaDiscoveryRequest { node, ..request(kind) };
            request.initial_resource_versions = self.subscription(kind).tell();
            if keyed {
                // Both ways at once: no, not all of them; but let there be a subscription.
                request.resource_names_subscribe.push(ALL.to_owned());
                request.resource_names_unsubscribe.push(ALL.to_owned());
                for key in &pending {
                    request.initial_resource_versions.entry(key.clone()).or_default();
                }
                // Of these nothing would come unless they are asked for.
                further.extend(asking_for(std::mem::take(&mut self.subscription(kind).untold)));
            }
            requests.push(request);
        }
        requests.extend(further);
        requests
    }

    /// Completes a response before it is taken over. The first one for all resources brings whatever was not told to be
    /// held, so what was neither told nor comes is gone, though the control plane could not say so.
    pub(super) fn complete(&mut self, kind: Kind, response: &mut DeltaDiscoveryResponse) {
        let untold = std::mem::take(&mut self.subscription(kind).untold);
        if untold.is_empty() {
            return;
        }
        let came: HashSet<&str> = response.resources.iter().map(|resource| resource.name.as_str()).collect();
        let gone: Vec<String> =
            untold.iter().filter(|name| !came.contains(&***name)).map(ToString::to_string).collect();
        response.removed_resources.extend(gone);
    }

    /// Notes what became of a response, wakes who waits for what is in it, and returns the answer; there is none to a
    /// response without a nonce, for it would be taken for a new subscription.
    pub(super) fn settle(&mut self, outcome: Outcome, now: Instant) -> Option<DeltaDiscoveryRequest> {
        let Outcome { kind, nonce, accepted, rejected, removed } = outcome;
        let keyed = self.keyed(kind);
        let subscription = self.subscription(kind);
        subscription.answered = true;
        subscription.acknowledged |= rejected.is_empty();
        for name in &removed {
            subscription.held.remove(name.as_str());
        }
        for resource in &accepted {
            match subscription.held.get_mut(&resource.name) {
                Some(version) => *version = resource.version.clone(),
                None => {
                    subscription.held.insert(Arc::clone(&resource.name), resource.version.clone());
                }
            }
        }
        if keyed {
            self.wake(&accepted, &rejected, &removed, now);
        }
        let error_detail = (!rejected.is_empty()).then(|| refusal(&rejected));
        (!nonce.is_empty()).then(|| DeltaDiscoveryRequest {
            response_nonce: nonce,
            error_detail,
            ..request(kind)
        })
    }

    /// Someone waits for a key. The request for it, if it has to be asked for.
    pub(super) fn demand(
        &mut self,
        key: &str,
        waiter: Waiter,
        now: Instant,
    ) -> Option<DeltaDiscoveryRequest> {
        self.demands.add(key, waiter, now).then(|| DeltaDiscoveryRequest {
            resource_names_subscribe: vec![key.to_owned()],
            ..request(Kind::Address)
        })
    }

    /// When to leave the stream for a fresh one, because of a key that is not answered on this one.
    pub(super) fn fresh_at(&self) -> Option<Instant> {
        self.demands.fresh_at()
    }

    /// The types that no response came for on the present stream, though one must.
    pub(super) fn unanswered(&self) -> impl Iterator<Item = Kind> + '_ {
        Kind::ALL.into_iter().filter(|kind| !self.keyed(*kind) && !self.of(*kind).answered)
    }

    /// Whether a type was taken over as a whole once. What is asked for a key at a time never is, and is not waited for.
    pub(super) fn is_synced(&self, kind: Kind) -> bool {
        self.keyed(kind) || self.of(kind).acknowledged
    }

    /// How many resources of a type are held.
    pub(super) fn held(&self, kind: Kind) -> usize {
        self.of(kind).held.len()
    }

    fn wake(&mut self, accepted: &[Accepted], rejected: &[Rejected], removed: &[String], now: Instant) {
        for name in removed {
            self.demands.absent(name, now);
        }
        for resource in rejected {
            self.demands.refused(&resource.name, now);
            resource.aliases.iter().for_each(|alias| self.demands.refused(alias, now));
        }
        for resource in accepted {
            self.demands.found(&resource.name);
            resource.aliases.iter().for_each(|alias| self.demands.found(alias));
        }
    }

    /// Whether a type is asked for a key at a time. Policies never are.
    fn keyed(&self, kind: Kind) -> bool {
        self.on_demand && kind == Kind::Address
    }

    fn of(&self, kind: Kind) -> &Subscription {
        match kind {
            Kind::Address => &self.address,
            Kind::Authorization => &self.authorization,
        }
    }

    fn subscription(&mut self, kind: Kind) -> &mut Subscription {
        match kind {
            Kind::Address => &mut self.address,
            Kind::Authorization => &mut self.authorization,
        }
    }
}

impl Subscription {
    /// Begins a stream. Returns what is held, as far as it fits into a request.
    fn tell(&mut self) -> HashMap<String, String> {
        self.answered = false;
        self.untold.clear();
        let (mut told, mut room) = (HashMap::new(), REQUEST);
        for (name, version) in &self.held {
            let version = version.to_string();
            match room.checked_sub(name.len() + version.len() + OVERHEAD) {
                Some(left) => {
                    room = left;
                    told.insert(name.to_string(), version);
                }
                None => {
                    self.untold.insert(Arc::clone(name));
                }
            }
        }
        told
    }
}

/// Requests for names, each of a size that is read.
fn asking_for(names: HashSet<Arc<str>>) -> Vec<DeltaDiscoveryRequest> {
    let (mut requests, mut room) = (Vec::new(), 0_usize);
    for name in names {
        let size = name.len() + OVERHEAD;
        if room < size {
            requests.push(request(Kind::Address));
            room = REQUEST;
        }
        room = room.saturating_sub(size);
        if let Some(last) = requests.last_mut() {
            last.resource_names_subscribe.push(name.to_string());
        }
    }
    requests
}

fn request(kind: Kind) -> DeltaDiscoveryRequest {
    DeltaDiscoveryRequest { type_url: kind.type_url().to_owned(), ..Default::default() }
}

/// What the control plane is told of resources that could not be taken over.
fn refusal(rejected: &[Rejected]) -> Status {
    let mut message = String::new();
    for (index, resource) in rejected.iter().take(NAMED).enumerate() {
        if index > 0 {
            message.push_str("; ");
        }
        message.push_str(&resource.reason);
    }
    let mut end = message.len().min(LONGEST);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    message.truncate(end);
    if rejected.len() > NAMED {
        message.push_str(&format!("; and {} more", rejected.len() - NAMED));
    }
    Status { code: INVALID_ARGUMENT, message }
}
