//! What a client must hold after what it has received, by the readable view.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use anyhow::{Context as _, Result, ensure};
use control_plane::wire::discovery::{ADDRESS, AUTHORIZATION};
use mesh::{Policy, Service, Snapshot, Workload};
use recordings::Line;
use serde_json::Value;

use super::readable;

/// One resource.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Resource {
    Workload(Arc<Workload>),
    Service(Arc<Service>),
    Policy(Arc<Policy>),
}

/// All resources, by type and name, and the versions that they came with.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Model {
    resources: BTreeMap<(&'static str, String), Resource>,
    versions: BTreeMap<(&'static str, String), String>,
}

impl Model {
    /// What a snapshot holds; it knows of no versions.
    fn of(snapshot: &Snapshot) -> BTreeMap<(&'static str, String), Resource> {
        let workloads = snapshot
            .workloads()
            .map(|one| ((ADDRESS, one.uid.to_string()), Resource::Workload(Arc::clone(one))));
        let services = snapshot
            .services()
            .map(|one| ((ADDRESS, one.key().to_string()), Resource::Service(Arc::clone(one))));
        let policies =
            snapshot.policies().map(|one| ((AUTHORIZATION, one.key()), Resource::Policy(Arc::clone(one))));
        workloads.chain(services).chain(policies).collect()
    }

    /// Takes over what was received.
    pub(super) fn receive(&mut self, line: &Line) -> Result<()> {
        let received = line.received.as_ref().context("nothing was received")?;
        let list = |key: &str| received[key].as_array().cloned().with_context(|| format!("no {key}"));
        let type_url = if received["type_url"] == ADDRESS { ADDRESS } else { AUTHORIZATION };
        ensure!(received["type_url"] == type_url, "{}", received["type_url"]);
        for name in list("removed_resources")? {
            let key = (type_url, name.as_str().context("a name")?.to_owned());
            self.resources.remove(&key);
            self.versions.remove(&key);
        }
        for mut resource in list("resources")? {
            let text =
                |key: &str| resource.get(key).and_then(Value::as_str).map(str::to_owned).context("no text");
            let (name, version) = (text("name")?, text("version")?);
            let body = resource.get_mut("body").map(Value::take).unwrap_or_default();
            let read = read(type_url, body).with_context(|| format!("read {name}"))?;
            self.resources.insert((type_url, name.clone()), read);
            self.versions.insert((type_url, name), version);
        }
        Ok(())
    }

    /// The versions of what is held of a type.
    pub(super) fn versions(&self, type_url: &str) -> BTreeMap<String, String> {
        let of_type = self.versions.iter().filter(|((of, _), _)| *of == type_url);
        of_type.map(|((_, name), version)| (name.clone(), version.clone())).collect()
    }

    /// Whether the resources are the same.
    pub(super) fn is_like(&self, other: &Self) -> bool {
        self.resources == other.resources
    }

    /// Fails with what a snapshot holds otherwise, or not at all, or though it should not.
    pub(super) fn compare(&self, snapshot: &Snapshot) -> Result<()> {
        let held = Self::of(snapshot);
        let names: BTreeSet<_> = self.resources.keys().chain(held.keys()).collect();
        for name in names {
            let (expected, found) = (self.resources.get(name), held.get(name));
            ensure!(expected == found, "{name:?}\n expected {expected:#?}\n found {found:#?}");
        }
        Ok(())
    }
}

fn read(type_url: &str, mut body: Value) -> Result<Resource> {
    if type_url == AUTHORIZATION {
        return Ok(Resource::Policy(readable::policy(body)?.into()));
    }
    let members = body.as_object().map(serde_json::Map::len);
    ensure!(members == Some(1), "neither a workload nor a service: {body}");
    match body.get_mut("workload") {
        Some(workload) => Ok(Resource::Workload(readable::workload(workload.take())?.into())),
        None => {
            let service = body.get_mut("service").map(Value::take).unwrap_or_default();
            Ok(Resource::Service(readable::service(service)?.into()))
        }
    }
}

/// The names of the policies that are in force for a workload.
fn in_force(snapshot: &Snapshot, workload: &Workload) -> BTreeSet<String> {
    let everywhere = snapshot.policies_for_namespace(&workload.namespace).map(|(name, _)| name);
    let listed = workload.authorization_policies.iter().filter(|name| snapshot.policy(name).is_some());
    everywhere.chain(listed).map(ToString::to_string).collect()
}

/// Fails if a policy that was in force for a workload before and after was not at one of the moments between.
pub(super) fn never_without<'a>(
    before: &Snapshot,
    between: impl Iterator<Item = &'a Snapshot>,
    after: &Snapshot,
) -> Result<()> {
    let between: Vec<&Snapshot> = between.collect();
    for workload in before.workloads() {
        let Some(later) = after.workload(&workload.uid) else { continue };
        let kept = &in_force(before, workload) & &in_force(after, later);
        for moment in &between {
            let Some(workload) = moment.workload(&workload.uid) else { continue };
            let missing = &kept - &in_force(moment, workload);
            ensure!(missing.is_empty(), "{}: a moment without {missing:?}", workload.uid);
        }
    }
    Ok(())
}
