//! What a client on one stream subscribes to, and what it is therefore told; no input or output.
//!
//! Invariants, as istiod keeps them: versions that the client brings spare it unchanged addresses, but no policy; a
//! key on demand that nobody has is answered once; what comes later at an address or behind a service that was
//! asked for is not pushed; workloads of the client's own node are.

use std::collections::BTreeSet;
use std::sync::Arc;

use tonic::Status;

use crate::resource::Resource;
use crate::wire::discovery::{ADDRESS, AUTHORIZATION, Request, Response};
use crate::world::World;

/// The subscriptions of a stream.
#[derive(Debug)]
pub(crate) struct Session {
    id: u64,
    answers: u64,
    node: String,
    addresses: Option<Subscription>,
    policies: Option<Subscription>,
}

/// The subscription to one type.
#[derive(Debug)]
struct Subscription {
    /// Whether keys are asked for one by one.
    on_demand: bool,
    /// The revision that has been told of.
    told: u64,
    /// On demand: names that the client holds.
    held: BTreeSet<String>,
    /// On demand: every name and key that was seen on the stream.
    seen: BTreeSet<String>,
}

impl Session {
    pub(crate) fn new(id: u64, node: &str) -> Self {
        Self { id, answers: 0, node: node.to_owned(), addresses: None, policies: None }
    }

    /// What a request is answered with, if with anything.
    pub(crate) fn request(&mut self, world: &World, request: &Request) -> Option<Response> {
        let node = self.node.clone();
        let all = world.of(&request.type_url)?;
        let slot = self.slot(&request.type_url)?;
        let (resources, removed) = match slot {
            Some(subscription) => {
                let (resources, removed) = subscription.more(world, request);
                if resources.is_empty() && removed.is_empty() {
                    return None;
                }
                (resources, removed)
            }
            None => {
                let on_demand = request.type_url == ADDRESS && !request.subscribe.is_empty();
                let subscription = slot.insert(Subscription {
                    on_demand,
                    told: world.revision(),
                    held: BTreeSet::new(),
                    seen: BTreeSet::new(),
                });
                if on_demand {
                    subscription.begin_on_demand(world, request, &node)
                } else {
                    let brought = &request.initial_resource_versions;
                    let known = |resource: &&Arc<Resource>| {
                        request.type_url == AUTHORIZATION
                            || brought.get(&resource.name) != Some(&resource.version)
                    };
                    let gone = brought.keys().filter(|name| !all.contains_key(*name)).cloned().collect();
                    (all.values().filter(known).cloned().collect(), gone)
                }
            }
        };
        self.respond(world, &request.type_url, &resources, removed)
    }

    /// What has to be told of changes since the last time, addresses first.
    pub(crate) fn push(&mut self, world: &World) -> Result<Vec<Response>, Status> {
        let node = self.node.clone();
        let mut responses = Vec::new();
        for type_url in [ADDRESS, AUTHORIZATION] {
            let Some(Some(subscription)) = self.slot(type_url) else { continue };
            let changed = world
                .changed_since(subscription.told, type_url)
                .ok_or_else(|| Status::unavailable("the stream is too far behind"))?;
            subscription.told = world.revision();
            let (resources, removed) = subscription.changes(world, type_url, changed, &node);
            if !resources.is_empty() || !removed.is_empty() {
                responses.extend(self.respond(world, type_url, &resources, removed));
            }
        }
        Ok(responses)
    }

    /// Everything that the client holds, again.
    pub(crate) fn resend(&mut self, world: &World) -> Vec<Response> {
        let mut responses = Vec::new();
        for type_url in [ADDRESS, AUTHORIZATION] {
            let Some(Some(subscription)) = self.slot(type_url) else { continue };
            let held = |resource: &&Arc<Resource>| {
                !subscription.on_demand || subscription.held.contains(&resource.name)
            };
            let all = world.of(type_url).into_iter().flat_map(|all| all.values());
            let resources: Vec<_> = all.filter(held).cloned().collect();
            responses.extend(self.respond(world, type_url, &resources, Vec::new()));
        }
        responses
    }

    fn slot(&mut self, type_url: &str) -> Option<&mut Option<Subscription>> {
        match type_url {
            ADDRESS => Some(&mut self.addresses),
            AUTHORIZATION => Some(&mut self.policies),
            _ => None,
        }
    }

    fn respond(
        &mut self,
        world: &World,
        type_url: &str,
        resources: &[Arc<Resource>],
        removed_resources: Vec<String>,
    ) -> Option<Response> {
        self.answers += 1;
        let (id, answers) = (self.id, self.answers);
        let on_demand = self.slot(type_url)?.as_ref()?.on_demand;
        let encoded = |resource: &Arc<Resource>| {
            if on_demand { resource.with_aliases() } else { resource.plain() }
        };
        Some(Response {
            system_version_info: world.revision().to_string(),
            resources: resources.iter().map(encoded).collect(),
            type_url: type_url.to_owned(),
            nonce: format!("{id}-{answers}"),
            removed_resources,
        })
    }
}

type Told = (Vec<Arc<Resource>>, Vec<String>);

impl Subscription {
    fn begin_on_demand(&mut self, world: &World, request: &Request, node: &str) -> Told {
        let brought = &request.initial_resource_versions;
        let (mut resources, mut removed) = (Vec::new(), Vec::new());
        for key in brought.keys() {
            self.seen.insert(key.clone());
            let found = world.find(key);
            match found.first() {
                None => removed.push(key.clone()),
                Some(resource) if brought.get(key) == Some(&resource.version) => {
                    self.held.insert(key.clone());
                }
                Some(_) => resources.extend(found),
            }
        }
        let all = world.of(ADDRESS).into_iter().flat_map(|all| all.values());
        resources.extend(all.filter(|resource| resource.node == node && !node.is_empty()).cloned());
        resources.retain(|resource| brought.get(&resource.name) != Some(&resource.version));
        for key in request.subscribe.iter().filter(|key| *key != "*") {
            self.ask(world, key, &mut resources, &mut removed);
        }
        (self.hold(resources), removed)
    }

    /// A later request of the stream: an answer to a response, keys to add, names to drop.
    fn more(&mut self, world: &World, request: &Request) -> Told {
        let (mut resources, mut removed) = (Vec::new(), Vec::new());
        if !self.on_demand {
            return (resources, removed);
        }
        if request.subscribe.iter().any(|key| !self.seen.contains(key)) {
            for key in &request.subscribe {
                self.ask(world, key, &mut resources, &mut removed);
            }
        }
        if !request.unsubscribe.is_empty() {
            for name in &request.unsubscribe {
                self.seen.remove(name);
                self.held.remove(name);
            }
            removed.extend(self.seen.iter().cloned());
        }
        (self.hold(resources), removed)
    }

    fn ask(
        &mut self,
        world: &World,
        key: &str,
        resources: &mut Vec<Arc<Resource>>,
        removed: &mut Vec<String>,
    ) {
        let first = self.seen.insert(key.to_owned());
        let found = world.find(key);
        if found.is_empty() && first {
            removed.push(key.to_owned());
        }
        resources.extend(found);
    }

    fn changes(&mut self, world: &World, type_url: &str, changed: BTreeSet<String>, node: &str) -> Told {
        let (mut resources, mut removed) = (Vec::new(), Vec::new());
        let Some(all) = world.of(type_url) else { return (resources, removed) };
        for name in changed {
            let held = !self.on_demand || self.held.contains(&name);
            match all.get(&name) {
                Some(resource) if held || (!node.is_empty() && resource.node == node) => {
                    resources.push(resource.clone());
                    if self.on_demand {
                        resources.extend(world.endpoints(&name));
                    }
                }
                None if held => {
                    self.held.remove(&name);
                    removed.push(name);
                }
                _ => {}
            }
        }
        (if self.on_demand { self.hold(resources) } else { resources }, removed)
    }

    /// Notes what the client gets, each once.
    fn hold(&mut self, resources: Vec<Arc<Resource>>) -> Vec<Arc<Resource>> {
        let mut named = BTreeSet::new();
        let once = resources.into_iter().filter(|resource| named.insert(resource.name.clone())).collect();
        self.seen.extend(named.iter().cloned());
        self.held.extend(named);
        once
    }
}
