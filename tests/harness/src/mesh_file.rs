//! The mesh file that the agents of a run watch: built in Rust, written as YAML, replaced in one step.
//!
//! The words are those of the agent's file source. Written beside and renamed over, so that no agent reads half a file.

use std::collections::BTreeMap;
use std::io::Write as _;
use std::net::IpAddr;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use serde::Serialize;
use serde_json::Value;

use crate::node::Node;
use crate::pod::Pod;

/// Where tunnels are taken.
pub const HBONE_PORT: u16 = 15008;

/// Service port to target port.
pub type Ports = BTreeMap<u16, u16>;

/// The file's contents.
#[derive(Debug, Clone, Default, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct MeshFile {
    /// Local certificate authority.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ca: Option<Ca>,
    /// Pods to capture.
    pub enroll: Vec<Enroll>,
    /// Endpoints of the mesh.
    pub workloads: Vec<Workload>,
    /// Services.
    pub services: Vec<Service>,
    /// Authorization policies, in the words of the config dump: `name, namespace, scope, action, rules`.
    pub policies: Vec<Value>,
}

/// Where the local certificate authority keeps its key.
#[derive(Debug, Clone, Serialize)]
pub struct Ca {
    /// Directory.
    pub dir: PathBuf,
}

/// A pod to capture: now, if it names a namespace; else when the CNI plugin brings it.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Enroll {
    /// Pod.
    pub name: String,
    /// Its Kubernetes namespace.
    pub namespace: String,
    /// Its account.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub service_account: Option<String>,
    /// Path of its network namespace.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub netns: Option<PathBuf>,
    /// Annotations of the pod.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
    /// The node whose agent captures it; not in the file, see [`MeshFile::write_for`].
    #[serde(skip)]
    pub node: String,
}

/// An endpoint.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Workload {
    /// Unique name.
    pub uid: String,
    /// Pod.
    pub name: String,
    /// Its Kubernetes namespace.
    pub namespace: String,
    /// Its account.
    pub service_account: String,
    /// Addresses.
    pub workload_ips: Vec<IpAddr>,
    /// `TCP` or `HBONE`.
    pub protocol: String,
    /// Node it is on.
    pub node: String,
    /// Name of its Deployment.
    pub workload_name: String,
    /// Name in telemetry.
    pub canonical_name: String,
    /// Revision in telemetry.
    pub canonical_revision: String,
    /// Selected policies, `namespace/name`.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub authorization_policies: Vec<String>,
    /// `namespace/hostname` of its services, and the ports they reach it by.
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub services: BTreeMap<String, Ports>,
    /// Network it is on.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub network: String,
    /// How its network is reached from others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_gateway: Option<Gateway>,
    /// What is in front of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waypoint: Option<Gateway>,
    /// How it takes connections for others.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub application_tunnel: Option<ApplicationTunnel>,
}

/// Where a waypoint or a gateway is.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Gateway {
    /// `network/address` or `namespace/hostname`.
    pub destination: String,
    /// Its port.
    pub hbone_mtls_port: u16,
    /// Its share among several.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub weight: Option<u32>,
}

/// How an application takes connections for others.
#[derive(Debug, Clone, Serialize)]
pub struct ApplicationTunnel {
    /// `NONE` or `PROXY`.
    pub protocol: String,
    /// Where it listens for them.
    pub port: u16,
}

/// A service.
#[derive(Debug, Clone, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Service {
    /// Name.
    pub name: String,
    /// Its Kubernetes namespace.
    pub namespace: String,
    /// Fully qualified.
    pub hostname: String,
    /// `network/address`.
    pub vips: Vec<String>,
    /// Ports.
    pub ports: Ports,
    /// What is in front of it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub waypoint: Option<Gateway>,
    /// Several, by weight.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub weighted_waypoints: Vec<Gateway>,
    /// Identities of those who serve it, beyond their own.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub subject_alt_names: Vec<String>,
}

impl Workload {
    /// A pod in the mesh, its account named as itself.
    pub fn hbone(name: &str, namespace: &str, node: &Node, ips: &[IpAddr]) -> Self {
        Self {
            uid: format!("Kubernetes//Pod/{namespace}/{name}"),
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            service_account: name.to_owned(),
            workload_ips: ips.to_vec(),
            protocol: "HBONE".to_owned(),
            node: node.name().to_owned(),
            workload_name: name.to_owned(),
            canonical_name: name.to_owned(),
            canonical_revision: "v1".to_owned(),
            authorization_policies: Vec::new(),
            services: BTreeMap::new(),
            network: String::new(),
            network_gateway: None,
            waypoint: None,
            application_tunnel: None,
        }
    }

    /// The entry of a pod that is there.
    pub fn of_pod(pod: &Pod) -> Self {
        Self::hbone(pod.name(), pod.namespace(), pod.node(), &pod.addresses())
    }

    /// Outside of the mesh.
    #[must_use]
    pub fn plain(self) -> Self {
        Self { protocol: "TCP".to_owned(), ..self }
    }

    /// An endpoint of this service too.
    #[must_use]
    pub fn serving(mut self, service: &Service) -> Self {
        self.services.insert(service.key(), service.ports.clone());
        self
    }
}

impl Gateway {
    /// The one at an address of a network, which is empty for the unnamed one.
    pub fn at(network: &str, address: IpAddr) -> Self {
        Self { destination: format!("{network}/{address}"), hbone_mtls_port: HBONE_PORT, weight: None }
    }

    /// The workloads of a service.
    pub fn of(service: &Service) -> Self {
        Self { destination: service.key(), hbone_mtls_port: HBONE_PORT, weight: None }
    }

    /// With a share among several.
    #[must_use]
    pub fn weighing(self, weight: u32) -> Self {
        Self { weight: Some(weight), ..self }
    }
}

impl Service {
    /// A service `name.namespace.svc.cluster.local`.
    pub fn new(name: &str, namespace: &str, vips: &[IpAddr], ports: &[(u16, u16)]) -> Self {
        Self {
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            hostname: format!("{name}.{namespace}.svc.cluster.local"),
            vips: vips.iter().map(|vip| format!("/{vip}")).collect(),
            ports: ports.iter().copied().collect(),
            waypoint: None,
            weighted_waypoints: Vec::new(),
            subject_alt_names: Vec::new(),
        }
    }

    /// `namespace/hostname`.
    pub fn key(&self) -> String {
        format!("{}/{}", self.namespace, self.hostname)
    }
}

impl Enroll {
    /// Captures a pod that is there already.
    pub fn running(pod: &Pod) -> Self {
        Self { netns: Some(pod.netns().to_owned()), ..Self::by_cni(pod.name(), pod.namespace(), pod.node()) }
    }

    /// Captures a pod when the CNI plugin brings it.
    pub fn by_cni(name: &str, namespace: &str, node: &Node) -> Self {
        Self {
            name: name.to_owned(),
            namespace: namespace.to_owned(),
            service_account: Some(name.to_owned()),
            netns: None,
            annotations: BTreeMap::new(),
            node: node.name().to_owned(),
        }
    }
}

impl MeshFile {
    /// An empty mesh with a certificate authority below `dir`.
    pub fn with_ca(dir: &Path) -> Self {
        Self { ca: Some(Ca { dir: dir.to_owned() }), ..Self::default() }
    }

    /// The entry of a workload.
    ///
    /// # Panics
    /// If there is none of this name.
    pub fn workload(&mut self, name: &str) -> &mut Workload {
        let found = self.workloads.iter_mut().find(|workload| workload.name == name);
        found.unwrap_or_else(|| panic!("no workload {name} in the mesh"))
    }

    /// The entry of a service.
    ///
    /// # Panics
    /// If there is none of this name.
    pub fn service(&mut self, name: &str) -> &mut Service {
        let found = self.services.iter_mut().find(|service| service.name == name);
        found.unwrap_or_else(|| panic!("no service {name} in the mesh"))
    }

    /// The entries that make a running pod a captured member of the mesh.
    pub fn add_running(&mut self, pod: &Pod) {
        self.enroll.push(Enroll::running(pod));
        self.workloads.push(Workload::of_pod(pod));
    }

    /// Denies one account of a namespace all that the namespace serves.
    pub fn deny(&mut self, name: &str, namespace: &str, account: &str) {
        self.policies.push(serde_json::json!({
            "name": name, "namespace": namespace, "scope": "Namespace", "action": "Deny",
            "rules": [[[{ "principals": [{ "Exact": format!("cluster.local/ns/{namespace}/sa/{account}") }] }]]],
        }));
    }

    /// Allows these accounts of a namespace, and nobody else, what the namespace serves.
    pub fn allow(&mut self, name: &str, namespace: &str, accounts: &[&str]) {
        let principal = |account| format!("cluster.local/ns/{namespace}/sa/{account}");
        let principals: Vec<Value> =
            accounts.iter().map(|account| serde_json::json!({ "Exact": principal(account) })).collect();
        self.policies.push(serde_json::json!({
            "name": name, "namespace": namespace, "scope": "Namespace", "action": "Allow",
            "rules": [[[{ "principals": principals }]]],
        }));
    }

    /// The file's text.
    pub fn to_yaml(&self) -> Result<String> {
        serde_saphyr::to_string(self).context("writing YAML")
    }

    /// Replaces the file in one step.
    pub fn write(&self, path: &Path) -> Result<()> {
        replace(path, &self.to_yaml()?)
    }

    /// Replaces one node's file: the whole mesh, and of the pods to capture only the node's own.
    pub fn write_for(&self, node: &Node, path: &Path) -> Result<()> {
        let mut own = self.clone();
        own.enroll.retain(|entry| entry.node == node.name());
        own.write(path)
    }
}

/// Replaces a file in one step.
pub fn replace(path: &Path, text: &str) -> Result<()> {
    let dir = path.parent().context("a file has a directory")?;
    let mut file = tempfile::NamedTempFile::new_in(dir)?;
    file.write_all(text.as_bytes())?;
    file.persist(path).with_context(|| format!("writing {}", path.display()))?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_and_the_ports_are_the_file_sources() {
        let mut mesh = MeshFile::with_ca(Path::new("/run/ca"));
        let vips = ["10.96.0.1".parse().unwrap(), "2001:db8:96::1".parse().unwrap()];
        mesh.services.push(Service::new("productpage", "default", &vips, &[(80, 8080)]));
        mesh.enroll.push(Enroll {
            name: "sleep".into(),
            namespace: "default".into(),
            service_account: Some("sleep".into()),
            netns: None,
            annotations: BTreeMap::new(),
            node: "n1".into(),
        });
        mesh.deny("no-notsleep", "default", "notsleep");
        let text = mesh.to_yaml().unwrap();
        for words in
            ["hostname: productpage.default.svc.cluster.local", "80: 8080", "serviceAccount: sleep", "Exact:"]
        {
            assert!(text.contains(words), "{words:?} in\n{text}");
        }
        assert!(!text.contains("netns") && !text.contains("n1"), "{text}");
    }
}
