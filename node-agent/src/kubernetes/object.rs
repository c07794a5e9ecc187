//! What is kept of the pods and namespaces that the API tells of: a twentieth of each.

use std::net::IpAddr;
use std::sync::Arc;

use cni::ambient::{self, Map};
use kube::core::ObjectMeta;

use super::plan::Word;
use super::told::Told;
use crate::enrollment::{CAPTURE_ANNOTATIONS, PodKey};

/// The annotation that says that a pod is captured.
pub(super) const REDIRECTION: &str = "ambient.istio.io/redirection";
/// By which the runtime knows a pod of the kubelet's own (a static pod) instead of its UID.
const CONFIG_HASH: &str = "kubernetes.io/config.hash";

/// What is kept of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Pod {
    pub(super) key: PodKey,
    /// In the API.
    pub(super) uid: Arc<str>,
    /// As the container runtime and the kernel have it.
    pub(super) runtime_uid: Arc<str>,
    pub(super) labels: Map,
    /// Those that decide about the pod and its capture.
    pub(super) annotations: Map,
    pub(super) host_network: bool,
    pub(super) service_account: Option<String>,
    pub(super) ips: Vec<IpAddr>,
    /// Whether it has run to its end.
    pub(super) is_terminal: bool,
    /// What the annotation of capture says.
    pub(super) says: Option<Word>,
    /// Of the object; 0 where it is no number.
    pub(super) version: u64,
}

/// What is kept of a namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Namespace {
    pub(super) name: String,
    pub(super) labels: Map,
}

impl Pod {
    /// Reads an object; one without names is none.
    pub(super) fn read(object: Told) -> Option<Self> {
        let ObjectMeta { name, namespace, uid, labels, annotations, resource_version, .. } = object.metadata;
        let (uid, mut annotations) = (Arc::<str>::from(uid?), annotations.unwrap_or_default());
        let says = annotations.get(REDIRECTION).map(|text| Word::read(text));
        let hash = annotations.get(CONFIG_HASH).map(|hash| Arc::from(hash.as_str()));
        annotations.retain(|name, _| {
            name == ambient::SIDECAR_STATUS || CAPTURE_ANNOTATIONS.contains(&name.as_str())
        });
        Some(Self {
            key: PodKey { namespace: namespace?, name: name? },
            runtime_uid: hash.unwrap_or_else(|| Arc::clone(&uid)),
            uid,
            labels: labels.unwrap_or_default(),
            annotations,
            host_network: object.host_network,
            service_account: object.service_account,
            ips: object.ips,
            is_terminal: matches!(object.phase.as_deref(), Some("Succeeded" | "Failed")),
            says,
            version: version(resource_version.as_deref()),
        })
    }
}

impl Namespace {
    /// Reads an object; one without a name is none.
    pub(super) fn read(object: Told) -> Option<Self> {
        Some(Self { name: object.metadata.name?, labels: object.metadata.labels.unwrap_or_default() })
    }
}

/// Versions of one kind of object grow, and may be compared as numbers (Kubernetes enhancement 5504).
pub(super) fn version(text: Option<&str>) -> u64 {
    text.and_then(|text| text.parse().ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_decides_is_kept_and_the_rest_is_not() {
        let object = json!({
            "metadata": {
                "name": "a", "namespace": "demo", "uid": "u1", "resourceVersion": "42",
                "labels": {"app": "web"}, "managedFields": [{"manager": "kubelet"}],
                "annotations": {
                    "ambient.istio.io/redirection": "enabled", "ambient.istio.io/dns-capture": "false",
                    "sidecar.istio.io/status": "{}", "kubectl.kubernetes.io/last-applied-configuration": "long",
                },
            },
            "spec": {"serviceAccountName": "web", "containers": [{"name": "app", "image": "x"}]},
            "status": {"phase": "Running", "podIP": "10.1.0.5", "podIPs": [{"ip": "10.1.0.5"}, {"ip": "2001:db8::5"}]},
        });
        let pod = Pod::read(serde_json::from_value(object).unwrap()).unwrap();
        assert_eq!((pod.key.to_string().as_str(), &*pod.uid, &*pod.runtime_uid), ("demo/a", "u1", "u1"));
        assert_eq!(pod.annotations.len(), 2);
        assert_eq!(pod.ips, ["10.1.0.5".parse::<IpAddr>().unwrap(), "2001:db8::5".parse().unwrap()]);
        assert_eq!((pod.says, pod.version), (Some(Word::Enabled), 42));
        assert!(!pod.is_terminal && !pod.host_network);
    }

    #[test]
    fn a_static_pod_is_known_to_the_runtime_by_its_hash() {
        let object = json!({
            "metadata": {"name": "a", "namespace": "n", "uid": "u1", "annotations": {"kubernetes.io/config.hash": "h"}},
            "spec": {"hostNetwork": true}, "status": {"phase": "Failed"},
        });
        let pod = Pod::read(serde_json::from_value(object).unwrap()).unwrap();
        assert_eq!((&*pod.uid, &*pod.runtime_uid), ("u1", "h"));
        assert!(pod.is_terminal && pod.host_network && pod.version == 0);
    }
}
