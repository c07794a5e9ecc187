//! A node as Kubernetes has one: a containerd, a conflist of bridge, portmap and culvert-cni, and this process in the place of
//! the kubelet.
//!
//! The agent is the test's to start, for it is what the tests take away. Dropping a node removes its pods, then its runtime.

use std::collections::HashMap;
use std::fs;
use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context as _, Result};
use harness::client::{self, Attempt};
use harness::inside::in_netns;
use harness::mesh_file::{Enroll, Workload};
use harness::{Agent, Node, Run, Wire, cni, containers};
use serde_json::{Value, json};

use crate::calls::Calls;
use crate::containerd::{Containerd, Places};
use crate::cri::Cri;
use crate::cri::proto::{
    ContainerConfig, ContainerMetadata, ContainerSecurity, CreateContainerRequest, ImageSpec,
    LinuxContainerConfig, LinuxPodSandboxConfig, NamespaceMode, NamespaceOption, PodSandboxConfig,
    PodSandboxMetadata, PortMapping, SandboxSecurity,
};
use crate::rootfs::{self, APP};
use crate::{HTTP, NAMESPACE, image};

/// Plugins of Debian's that the conflist and the runtime call.
const PLUGINS: [&str; 4] = ["bridge", "host-local", "loopback", "portmap"];

/// The one network configuration of a node.
pub const CONFLIST: &str = "10-culvert.conflist";

static PODS: AtomicU32 = AtomicU32::new(0);

/// A pod to be run.
#[derive(Debug, Clone)]
pub struct PodSpec {
    /// Its name.
    pub name: String,
    /// Its Kubernetes namespace.
    pub namespace: String,
    /// Its UID, of the shape that Kubernetes gives.
    pub uid: String,
    /// Its annotations.
    pub annotations: HashMap<String, String>,
    /// Port of the node, and the one of the pod behind it.
    pub host_port: Option<(u16, u16)>,
}

impl PodSpec {
    /// A pod of the usual namespace.
    pub fn named(name: &str) -> Self {
        let (process, count) = (std::process::id() & 0xffff, PODS.fetch_add(1, Ordering::Relaxed));
        let uid = format!("c0ffee01-0000-4000-{process:04x}-{count:012x}");
        let (name, namespace) = (name.to_owned(), NAMESPACE.to_owned());
        Self { name, namespace, uid, annotations: HashMap::new(), host_port: None }
    }
}

/// A pod that runs.
#[derive(Debug, Clone)]
pub struct CriPod {
    /// Its name.
    pub name: String,
    /// Its Kubernetes namespace.
    pub namespace: String,
    /// The runtime's name of its sandbox.
    pub id: String,
    /// Its network namespace.
    pub netns: PathBuf,
    /// Its addresses, IPv4 first.
    pub ips: Vec<IpAddr>,
}

impl CriPod {
    /// A request from within the pod, on a connection of its own.
    pub fn attempt(&self, to: SocketAddr) -> Result<Attempt> {
        Ok(client::attempt(in_netns(&self.netns, || client::connect(to, client::LIMIT))?, "/"))
    }

    /// Its HTTP server, at each of its addresses.
    pub fn servers(&self) -> Vec<SocketAddr> {
        self.ips.iter().map(|ip| SocketAddr::new(*ip, HTTP)).collect()
    }

    /// The kernel's number of its namespace.
    pub fn cookie(&self) -> Result<u64> {
        Ok(linux::netns::Netns::open(&self.netns)?.cookie()?)
    }

    /// Its entry as a workload of the mesh.
    pub fn workload(&self, node: &Node) -> Workload {
        Workload::hbone(&self.name, &self.namespace, node, &self.ips)
    }
}

/// A node with its runtime.
#[derive(Debug)]
pub struct CriNode {
    /// Speaks to the runtime. Fields drop in order: what needs the run before the run.
    pub cri: Cri,
    /// The runtime.
    pub containerd: Containerd,
    /// Which plugins were called.
    pub calls: Calls,
    /// The node's namespace.
    pub node: Node,
    run: Arc<Run>,
}

impl CriNode {
    /// Joins a node to a wire, and starts its runtime.
    pub fn start(wire: &Wire, name: &str) -> Result<Self> {
        Self::start_with(wire, name, &plugins()?, conflist)
    }

    /// The same, before anything of ours was installed on it.
    pub fn start_bare(wire: &Wire, name: &str) -> Result<Self> {
        Self::start_with(wire, name, &plugins_of_debian(), plain_conflist)
    }

    fn start_with(
        wire: &Wire,
        name: &str,
        plugins: &[PathBuf],
        conflist: impl Fn(&Node) -> Result<Value>,
    ) -> Result<Self> {
        let node = wire.add_node(name)?;
        let run = Arc::clone(node.run());
        let dir = run.dir().join(name);
        fs::create_dir_all(&dir)?;
        let places = Places {
            netns: node.netns().to_owned(),
            dir: dir.join("c"),
            plugins: dir.join("bin"),
            conflists: dir.join("net.d"),
        };
        let calls = Calls::record(plugins, &places.plugins, &dir.join("calls"))?;
        fs::create_dir_all(&places.conflists)?;
        fs::write(places.conflists.join(CONFLIST), conflist(&node)?.to_string())?;
        let containerd = Containerd::start(places)?;
        containerd.import(&archive(&run)?)?;
        let cri = Cri::new(&containerd.socket())?;
        Ok(Self { cri, containerd, calls, node, run })
    }

    /// The directories of its plugins and of their configurations.
    pub fn cni_dirs(&self) -> (PathBuf, PathBuf) {
        let dir = self.run.dir().join(self.node.name());
        (dir.join("bin"), dir.join("net.d"))
    }

    /// Where its agent looks for the mesh.
    pub fn mesh_path(&self) -> PathBuf {
        self.run.dir().join(format!("{}.yaml", self.node.name()))
    }

    /// Starts its agent, and waits until it is ready.
    pub fn start_agent(&self) -> Result<Agent> {
        self.start_agent_with(&[])
    }

    /// The same, with more arguments.
    pub fn start_agent_with(&self, arguments: &[&str]) -> Result<Agent> {
        let mut agent = Agent::spawn(&self.node, &self.mesh_path(), arguments)?;
        agent.wait_ready()?;
        Ok(agent)
    }

    /// Where the plugin's entry says that the kubeconfig is; there is none unless a test writes it.
    pub fn kubeconfig(&self) -> PathBuf {
        kubeconfig_of(&self.node)
    }

    /// The entry that lets a pod into the mesh when the plugin brings it.
    pub fn enrol(&self, name: &str) -> Enroll {
        Enroll::by_cni(name, NAMESPACE, &self.node)
    }

    /// Makes a pod's sandbox, as a kubelet does; no container yet.
    pub fn sandbox(&self, spec: &PodSpec) -> Result<CriPod> {
        let config = self.config(spec);
        let id = self.cri.run_sandbox(&config)?;
        self.pod(spec, id)
    }

    /// Makes a pod with a container in it, which serves HTTP.
    pub fn pod_with_server(&self, spec: &PodSpec) -> Result<CriPod> {
        let port = HTTP.to_string();
        let command = [APP, "serve-http", "--name", &spec.name, "--port", &port].map(str::to_owned);
        let container = ContainerConfig {
            metadata: Some(ContainerMetadata { name: "main".to_owned(), attempt: 0 }),
            image: Some(ImageSpec { image: image::NAME.to_owned() }),
            command: command.into(),
            log_path: "main.log".to_owned(),
            linux: Some(LinuxContainerConfig { security_context: Some(ContainerSecurity::default()) }),
            ..ContainerConfig::default()
        };
        Ok(self.pod_with(spec, container)?.0)
    }

    /// Makes a pod with this container in it, whose id comes second.
    pub fn pod_with(&self, spec: &PodSpec, mut container: ContainerConfig) -> Result<(CriPod, String)> {
        let config = self.config(spec);
        let id = self.cri.run_sandbox(&config)?;
        let security = container.linux.as_mut().and_then(|linux| linux.security_context.as_mut());
        security.context("a container without a security context")?.namespace_options =
            config.linux.as_ref().and_then(|linux| linux.security_context.as_ref()?.namespace_options);
        let container = self.cri.start_container(CreateContainerRequest {
            pod_sandbox_id: id.clone(),
            config: Some(container),
            sandbox_config: Some(config),
        })?;
        Ok((self.pod(spec, id)?, container))
    }

    /// What the containers of a pod wrote, in the runtime's format.
    pub fn logs(&self, spec: &PodSpec) -> String {
        let files = fs::read_dir(self.log_directory(spec)).into_iter().flatten().flatten();
        files.map(|file| fs::read_to_string(file.path()).unwrap_or_default()).collect()
    }

    /// Takes a pod down, as a kubelet does, which stops it more than once.
    pub fn remove(&self, pod: &CriPod) -> Result<()> {
        self.cri.stop_sandbox(&pod.id)?;
        self.cri.stop_sandbox(&pod.id)?;
        self.cri.remove_sandbox(&pod.id)
    }

    fn config(&self, spec: &PodSpec) -> PodSandboxConfig {
        let PodSpec { name, namespace, uid, annotations, host_port } = spec;
        let namespaces = NamespaceOption {
            network: NamespaceMode::Pod.into(),
            pid: NamespaceMode::Container.into(),
            ipc: NamespaceMode::Pod.into(),
        };
        let labels = [("name", name), ("namespace", namespace), ("uid", uid)];
        let parent = format!("/{}/{}/pod{uid}", containers::cgroup_of(self.run.id()), self.node.name());
        let mapping = |(host, container): &(u16, u16)| PortMapping {
            protocol: 0,
            container_port: i32::from(*container),
            host_port: i32::from(*host),
        };
        PodSandboxConfig {
            metadata: Some(PodSandboxMetadata {
                name: name.clone(),
                uid: uid.clone(),
                namespace: namespace.clone(),
                attempt: 0,
            }),
            hostname: name.clone(),
            log_directory: self.log_directory(spec).display().to_string(),
            port_mappings: host_port.iter().map(mapping).collect(),
            labels: labels.map(|(key, value)| (format!("io.kubernetes.pod.{key}"), value.clone())).into(),
            annotations: annotations.clone(),
            linux: Some(LinuxPodSandboxConfig {
                cgroup_parent: parent,
                security_context: Some(SandboxSecurity { namespace_options: Some(namespaces) }),
            }),
        }
    }

    fn log_directory(&self, spec: &PodSpec) -> PathBuf {
        self.run.dir().join(self.node.name()).join("logs").join(&spec.uid)
    }

    fn pod(&self, spec: &PodSpec, id: String) -> Result<CriPod> {
        let told = self.cri.sandbox(&id)?;
        let network = told.status.and_then(|status| status.network).context("a sandbox without a network")?;
        let ips = std::iter::once(network.ip).chain(network.additional_ips.into_iter().map(|ip| ip.ip));
        let ips =
            ips.map(|ip| ip.parse().with_context(|| format!("address {ip:?}"))).collect::<Result<_>>()?;
        let info: Value = serde_json::from_str(told.info.get("info").context("a sandbox without details")?)?;
        let namespaces = info.pointer("/runtimeSpec/linux/namespaces").and_then(Value::as_array);
        let network = namespaces.into_iter().flatten().find(|namespace| namespace["type"] == "network");
        let netns =
            network.and_then(|network| network["path"].as_str()).context("a sandbox without a namespace")?;
        let (name, namespace) = (spec.name.clone(), spec.namespace.clone());
        Ok(CriPod { name, namespace, id, netns: netns.into(), ips })
    }
}

impl Drop for CriNode {
    fn drop(&mut self) {
        // The run's teardown finds whatever survives this.
        for sandbox in self.cri.sandboxes().unwrap_or_default() {
            let _ = self.cri.stop_sandbox(&sandbox.id);
            let _ = self.cri.remove_sandbox(&sandbox.id);
        }
    }
}

fn kubeconfig_of(node: &Node) -> PathBuf {
    node.agent_dir().join("culvert-kubeconfig")
}

/// bridge and portmap, as on a node that is in no mesh.
fn plain_conflist(node: &Node) -> Result<Value> {
    let mut list = node.plain_conflist();
    list.plugins.push(portmap());
    Ok(json!({ "cniVersion": list.cni_version, "name": list.name, "plugins": list.plugins }))
}

/// What the installer would have made of it.
fn conflist(node: &Node) -> Result<Value> {
    let mut list = node.conflist()?;
    list.plugins.insert(1, portmap());
    let ours = list.plugins.last_mut().and_then(Value::as_object_mut).context("a conflist has our entry")?;
    ours.insert("ambientList".to_owned(), json!(node.agent_dir().join("ambient.json")));
    ours.insert("kubeconfig".to_owned(), json!(kubeconfig_of(node)));
    ours.insert("capabilities".to_owned(), json!({ "io.kubernetes.cri.pod-annotations": true }));
    Ok(json!({ "cniVersion": list.cni_version, "name": list.name, "plugins": list.plugins }))
}

fn portmap() -> Value {
    json!({ "type": "portmap", "capabilities": { "portMappings": true }, "snat": true })
}

/// The plugins of a node: Debian's and ours.
pub fn plugins() -> Result<Vec<PathBuf>> {
    let ours = harness::node::culvert_cni()?;
    Ok(plugins_of_debian().into_iter().chain([ours]).collect())
}

/// Those of Debian alone.
fn plugins_of_debian() -> Vec<PathBuf> {
    PLUGINS.iter().map(|name| PathBuf::from(cni::PLUGIN_DIR).join(name)).collect()
}

/// The root file system of pods, made once a run.
pub fn rootfs(run: &Run) -> Result<PathBuf> {
    let root = run.dir().join("rootfs");
    if !root.exists() {
        rootfs::make(&root)?;
    }
    Ok(root)
}

/// The image of pods and sandboxes, made once a run.
fn archive(run: &Run) -> Result<PathBuf> {
    let archive = run.dir().join("image.tar");
    if !archive.exists() {
        image::write(&rootfs(run)?, &[APP, "hold"], &archive)?;
    }
    Ok(archive)
}
