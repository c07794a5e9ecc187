//! An object as the API tells of it, of which what is needed is read and nothing else.
//!
//! Invariant: what is JSON can be read. One object that could not be would take its whole list with it, and with that all news of every
//! other. So what is not there, or is not what it should be, counts as absent, each field by itself.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::net::IpAddr;

use kube::Resource;
use kube::core::{ApiResource, DynamicResourceScope, ObjectMeta};
use serde::{Deserialize, Deserializer};
use serde_json::Value;

/// A pod or a namespace.
#[derive(Clone, Debug, Default)]
pub(super) struct Told {
    /// Names, labels, annotations, UID and version; the rest is not read.
    pub(super) metadata: ObjectMeta,
    /// Whether it is in the node's network namespace.
    pub(super) host_network: bool,
    /// The account that it runs under.
    pub(super) service_account: Option<String>,
    /// How far it has come.
    pub(super) phase: Option<String>,
    /// Its addresses, in order, each once.
    pub(super) ips: Vec<IpAddr>,
}

impl Told {
    fn read(object: &Value) -> Self {
        let text = |place: &str| object.pointer(place).and_then(Value::as_str).map(str::to_owned);
        let texts = |place: &str| object.pointer(place).and_then(Value::as_object).map(texts);
        let listed = object.pointer("/status/podIPs").and_then(Value::as_array).into_iter().flatten();
        let listed = listed.filter_map(|one| one.get("ip")).chain(object.pointer("/status/podIP"));
        let mut ips: Vec<IpAddr> =
            listed.filter_map(Value::as_str).filter_map(|ip| ip.parse().ok()).collect();
        ips.sort_unstable();
        ips.dedup();
        Self {
            metadata: ObjectMeta {
                name: text("/metadata/name"),
                namespace: text("/metadata/namespace"),
                uid: text("/metadata/uid"),
                resource_version: text("/metadata/resourceVersion"),
                labels: texts("/metadata/labels"),
                annotations: texts("/metadata/annotations"),
                ..ObjectMeta::default()
            },
            host_network: object.pointer("/spec/hostNetwork").and_then(Value::as_bool).unwrap_or_default(),
            service_account: text("/spec/serviceAccountName"),
            phase: text("/status/phase"),
            ips,
        }
    }
}

/// Those of the values that are texts.
fn texts(map: &serde_json::Map<String, Value>) -> BTreeMap<String, String> {
    map.iter().filter_map(|(key, value)| Some((key.clone(), value.as_str()?.to_owned()))).collect()
}

impl<'de> Deserialize<'de> for Told {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Value::deserialize(deserializer).map(|object| Self::read(&object))
    }
}

impl Resource for Told {
    type DynamicType = ApiResource;
    type Scope = DynamicResourceScope;

    fn kind(kind: &ApiResource) -> Cow<'_, str> {
        kind.kind.as_str().into()
    }

    fn group(kind: &ApiResource) -> Cow<'_, str> {
        kind.group.as_str().into()
    }

    fn version(kind: &ApiResource) -> Cow<'_, str> {
        kind.version.as_str().into()
    }

    fn plural(kind: &ApiResource) -> Cow<'_, str> {
        kind.plural.as_str().into()
    }

    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }

    fn meta_mut(&mut self) -> &mut ObjectMeta {
        &mut self.metadata
    }
}

#[cfg(test)]
mod tests {
    use kube::core::{ObjectList, WatchEvent};

    use super::super::object::{Namespace, Pod};
    use super::*;

    /// As an API server writes a page of a list, and among its pods such as none should be.
    const PODS: &str = r#"{
      "kind": "PodList", "apiVersion": "v1",
      "metadata": { "resourceVersion": "1042", "continue": "next", "remainingItemCount": 7 },
      "items": [
        {
          "metadata": {
            "name": "web-7d4b9-x2x7p", "generateName": "web-7d4b9-", "namespace": "demo",
            "uid": "5f0c1c0e-1111-4f5e-9d57-3c5d0c2e0a01", "resourceVersion": "1001",
            "creationTimestamp": "2026-11-26T08:00:00Z",
            "labels": { "app": "web", "pod-template-hash": "7d4b9" },
            "ownerReferences": [ { "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-7d4b9", "uid": "u", "controller": true } ],
            "managedFields": [ { "manager": "kubelet", "operation": "Update", "fieldsV1": { "f:status": {} } } ]
          },
          "spec": {
            "containers": [ { "name": "web", "image": "web:1", "env": [ { "name": "TOKEN", "value": "secret" } ], "resources": {} } ],
            "serviceAccountName": "web", "nodeName": "n1", "hostNetwork": true
          },
          "status": {
            "phase": "Running", "hostIP": "192.0.2.7", "podIP": "10.1.0.5",
            "podIPs": [ { "ip": "2001:db8::5" }, { "ip": "10.1.0.5" } ]
          }
        },
        { "metadata": { "name": "no-spec", "namespace": "demo", "uid": "u2" } },
        { "metadata": { "name": "nulls", "namespace": "demo", "uid": "u3", "labels": null, "creationTimestamp": 7 }, "spec": null, "status": null },
        {
          "metadata": { "name": "odd", "namespace": "demo", "uid": "u4", "labels": { "app": "web", "number": 7, "none": null }, "annotations": [] },
          "spec": { "hostNetwork": "yes", "serviceAccountName": { "name": "web" } },
          "status": { "phase": 3, "podIP": "10.1.0.6", "podIPs": [ null, {}, { "ip": 4 }, { "ip": "no address" }, { "ip": "10.1.0.7" } ] }
        },
        { "metadata": "nothing" }, { "metadata": { "namespace": "demo", "uid": "u5" } }, {}, null, 7, "text", [ [] ],
        { "metadata": { "name": "last", "namespace": "demo", "uid": "u6" }, "spec": { "serviceAccountName": "default" }, "status": {} }
      ]
    }"#;

    #[test]
    fn an_odd_object_takes_no_other_with_it() {
        let list: ObjectList<Told> = serde_json::from_str(PODS).unwrap();
        assert_eq!(list.metadata.continue_.as_deref(), Some("next"));
        assert_eq!(list.items.len(), 12);
        let pods: Vec<Pod> = list.items.into_iter().filter_map(Pod::read).collect();
        let names: Vec<&str> = pods.iter().map(|pod| pod.key.name.as_str()).collect();
        assert_eq!(names, ["web-7d4b9-x2x7p", "no-spec", "nulls", "odd", "last"]);
        let [web, no_spec, nulls, odd, last] = pods.as_slice() else { panic!("{pods:?}") };
        assert!(web.host_network && web.labels.len() == 2 && web.ips.len() == 2 && web.version == 1001);
        for empty in [no_spec, nulls] {
            assert!(!empty.host_network && empty.labels.is_empty() && empty.ips.is_empty());
            assert!(empty.service_account.is_none() && !empty.is_terminal);
        }
        assert!(!odd.host_network && odd.service_account.is_none() && odd.annotations.is_empty());
        assert_eq!((odd.labels.len(), odd.labels["app"].as_str()), (1, "web"));
        assert_eq!(odd.ips, ["10.1.0.6".parse::<IpAddr>().unwrap(), "10.1.0.7".parse().unwrap()]);
        assert_eq!(last.service_account.as_deref(), Some("default"));
    }

    #[test]
    fn nor_does_an_odd_event() {
        for (event, name) in [
            (
                r#"{"type":"ADDED","object":{"kind":"Namespace","metadata":{"name":"demo","resourceVersion":"5"}}}"#,
                "demo",
            ),
            (
                r#"{"type":"MODIFIED","object":{"metadata":{"name":"demo"},"spec":7,"status":{"phase":"Active"}}}"#,
                "demo",
            ),
            (r#"{"type":"DELETED","object":{}}"#, ""),
        ] {
            let told = match serde_json::from_str(event).unwrap() {
                WatchEvent::Added(told) | WatchEvent::Modified(told) | WatchEvent::Deleted(told) => told,
                other => panic!("{other:?}"),
            };
            assert_eq!(Namespace::read(told).map(|namespace| namespace.name).unwrap_or_default(), name);
        }
    }
}
