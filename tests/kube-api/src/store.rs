//! The objects, their versions, and what happened to them since the oldest version that is still known.

use std::collections::BTreeMap;

use serde_json::{Value, json};

use crate::error::Refusal;
use crate::path::Resource;

/// Place of an object: namespace (empty for what is in none) and name.
pub(crate) type Place = (String, String);

/// What happened.
#[derive(Clone, Debug)]
pub(crate) struct Change {
    pub(crate) version: u64,
    pub(crate) resource: Resource,
    /// As it was before; none of what is new.
    pub(crate) before: Option<Value>,
    /// As it is now, or as it was when it was deleted.
    pub(crate) object: Value,
    pub(crate) is_deleted: bool,
}

/// All of it.
#[derive(Debug)]
pub(crate) struct Store {
    version: u64,
    /// Changes of this version and before are not known any more.
    oldest: u64,
    objects: BTreeMap<(Resource, Place), Value>,
    log: Vec<Change>,
}

impl Default for Store {
    fn default() -> Self {
        // Nobody may rely on versions that begin with 1.
        Self { version: 1000, oldest: 1000, objects: BTreeMap::new(), log: Vec::new() }
    }
}

impl Store {
    pub(crate) fn version(&self) -> u64 {
        self.version
    }

    /// Puts an object in its place; one without a UID gets that of the object that is there, or a new one.
    pub(crate) fn put(&mut self, resource: Resource, mut object: Value) -> Result<Value, Refusal> {
        let place = place(resource, &object)?;
        let before = self.objects.get(&(resource, place.clone())).cloned();
        self.version += 1;
        let known = before.as_ref().and_then(|before| before.pointer("/metadata/uid")).cloned();
        let Some(root) = object.as_object_mut() else { return Err(Refusal::bad("no object")) };
        root.insert("apiVersion".to_owned(), resource.api_version.into());
        root.insert("kind".to_owned(), resource.kind.into());
        if resource.has_spec() {
            root.entry("spec").or_insert_with(|| json!({}));
            root.entry("status").or_insert_with(|| json!({}));
        }
        let Some(metadata) = root.get_mut("metadata").and_then(Value::as_object_mut) else {
            return Err(Refusal::bad("no metadata"));
        };
        metadata.entry("uid").or_insert_with(|| known.unwrap_or_else(|| new_uid().into()));
        metadata.insert("resourceVersion".to_owned(), self.version.to_string().into());
        self.objects.insert((resource, place), object.clone());
        self.log.push(Change {
            version: self.version,
            resource,
            before,
            object: object.clone(),
            is_deleted: false,
        });
        Ok(object)
    }

    /// Removes an object; nobody who watches hears of it if that is to be silent.
    pub(crate) fn remove(&mut self, resource: Resource, place: &Place, is_silent: bool) -> Option<Value> {
        let mut object = self.objects.remove(&(resource, place.clone()))?;
        self.version += 1;
        if let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) {
            metadata.insert("resourceVersion".to_owned(), self.version.to_string().into());
        }
        if !is_silent {
            let before = Some(object.clone());
            let version = self.version;
            self.log.push(Change { version, resource, before, object: object.clone(), is_deleted: true });
        }
        Some(object)
    }

    pub(crate) fn get(&self, resource: Resource, place: &Place) -> Option<&Value> {
        self.objects.get(&(resource, place.clone()))
    }

    /// The objects of a resource, in the order of their places.
    pub(crate) fn all(&self, resource: Resource) -> impl Iterator<Item = (&Place, &Value)> {
        let of_it = self.objects.iter().filter(move |((of, _), _)| *of == resource);
        of_it.map(|((_, place), object)| (place, object))
    }

    /// What happened after a version.
    pub(crate) fn since(&self, version: u64) -> Result<&[Change], Refusal> {
        if version < self.oldest {
            return Err(Refusal::gone(version, self.oldest));
        }
        let start = self.log.partition_point(|change| change.version <= version);
        Ok(self.log.get(start..).unwrap_or_default())
    }

    /// Forgets what happened until now.
    pub(crate) fn compact(&mut self) {
        self.version += 1;
        self.oldest = self.version;
        self.log.clear();
    }
}

/// Where an object belongs.
pub(crate) fn place(resource: Resource, object: &Value) -> Result<Place, Refusal> {
    let text = |name: &str| object.pointer(&format!("/metadata/{name}")).and_then(Value::as_str);
    let name = text("name").ok_or_else(|| Refusal::bad("an object needs metadata.name"))?;
    let namespace = text("namespace").unwrap_or_default();
    if resource.is_namespaced() == namespace.is_empty() {
        return Err(Refusal::bad(format!("{} of namespace {namespace:?}", resource.kind)));
    }
    Ok((namespace.to_owned(), name.to_owned()))
}

fn new_uid() -> String {
    let [a, b]: [u64; 2] = rand::random();
    let (high, low) = (a >> 32, a & 0xffff_ffff);
    format!(
        "{high:08x}-{:04x}-4{:03x}-8{:03x}-{:012x}",
        low >> 16,
        low & 0xfff,
        b >> 52,
        b & 0xffff_ffff_ffff
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pod(name: &str) -> Value {
        json!({"metadata": {"name": name, "namespace": "demo"}})
    }

    #[test]
    fn versions_grow_and_uids_stay_with_their_objects() {
        let mut store = Store::default();
        let start = store.version();
        let first = store.put(crate::PODS, pod("a")).unwrap();
        let second = store.put(crate::PODS, pod("a")).unwrap();
        assert_eq!(first.pointer("/metadata/uid"), second.pointer("/metadata/uid"));
        let place = ("demo".to_owned(), "a".to_owned());
        store.remove(crate::PODS, &place, false).unwrap();
        let third = store.put(crate::PODS, pod("a")).unwrap();
        assert_ne!(first.pointer("/metadata/uid"), third.pointer("/metadata/uid"));
        let versions: Vec<u64> = store.since(start).unwrap().iter().map(|change| change.version).collect();
        assert_eq!(versions, [start + 1, start + 2, start + 3, start + 4]);
    }

    #[test]
    fn what_is_compacted_is_gone_and_what_is_silent_is_not_told() {
        let mut store = Store::default();
        let start = store.version();
        store.put(crate::PODS, pod("a")).unwrap();
        store.remove(crate::PODS, &("demo".to_owned(), "a".to_owned()), true).unwrap();
        assert_eq!(store.since(start).unwrap().len(), 1);
        assert_eq!(store.all(crate::PODS).count(), 0);
        store.compact();
        assert_eq!(store.since(start).unwrap_err().code, 410);
        assert!(store.since(store.version()).unwrap().is_empty());
    }
}
