//! A cluster around the nodes of a world: a stand-in for the API server on the host outside, and pods in it that run on the nodes.
//!
//! A pod's processes are in a cgroup as the kubelet makes it, by which an agent finds them; it goes with its handle.

use std::fs;
use std::net::{IpAddr, SocketAddr, TcpListener};
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use harness::inside::in_netns;
use harness::wire::Station;
use harness::{App, Pod, Run, containers, eventually};
use kube_api::{KubeApi, NAMESPACES, PODS};
use serde_json::{Value, json};

use crate::LIMIT;

/// The annotation that says that a pod is captured.
pub const REDIRECTION: &str = "ambient.istio.io/redirection";
/// The label that asks for it.
pub const MODE: &str = "istio.io/dataplane-mode";
/// Where the API is on its host.
const PORT: u16 = 6443;

/// A cluster.
pub struct Cluster {
    /// Its API.
    pub api: KubeApi,
    address: SocketAddr,
    netns: PathBuf,
}

impl Cluster {
    /// A cluster with the namespace `demo` and nothing else, whose API is on a host of the wire.
    pub fn start(run: &Run, host: &Station) -> Result<Self> {
        let api = KubeApi::new(&run.dir().join("kube-api"))?;
        let address = SocketAddr::new(IpAddr::V4(host.addresses().0), PORT);
        let mut cluster = Self { api, address, netns: host.netns.clone() };
        cluster.label_namespace(None)?;
        cluster.resume()?;
        Ok(cluster)
    }

    /// The words by which an agent finds it.
    pub fn arguments(&self) -> Vec<String> {
        vec!["--kubernetes".into(), format!("--kubeconfig={}", self.api.kubeconfig().display())]
    }

    /// Where its API is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Serves again, after [`KubeApi::stop`].
    pub fn resume(&mut self) -> Result<()> {
        let listener = in_netns(&self.netns, || TcpListener::bind(self.address))??;
        self.api.start(listener)
    }

    /// Labels the namespace, or takes its label away.
    pub fn label_namespace(&self, mode: Option<&str>) -> Result<()> {
        let labels: serde_json::Map<_, _> = mode.iter().map(|mode| (MODE.to_owned(), json!(mode))).collect();
        let namespace = json!({"kind": "Namespace", "metadata": {"name": "demo", "labels": labels}});
        self.api.apply(&namespace).map(drop)
    }

    /// Labels a pod, or takes its label away.
    pub fn label(&self, pod: &Pod, mode: Option<&str>) -> Result<()> {
        self.change(pod, &json!({"metadata": {"labels": {MODE: mode}}}))
    }

    /// Changes a pod.
    pub fn change(&self, pod: &Pod, changes: &Value) -> Result<()> {
        self.api.patch(PODS, pod.namespace(), pod.name(), changes).map(drop)
    }

    /// Puts a pod of which nothing runs yet into the API, under the UID that the harness gives it towards the plugin.
    pub fn announce(&self, name: &str, node: &str, uid: &str, mode: Option<&str>) -> Result<()> {
        self.api.apply(&object(name, node, uid, mode, &[])).map(drop)
    }

    /// Puts a running pod into the API, and its process into its cgroup.
    pub fn run(&self, pod: &Pod, app: &App) -> Result<PodCgroup> {
        let cgroup = PodCgroup::new(pod.node().run(), app)?;
        let ips = pod.addresses();
        self.api.apply(&object(pod.name(), pod.node().name(), &cgroup.uid, None, &ips))?;
        Ok(cgroup)
    }

    /// What the API says of the capture of a pod.
    pub fn says(&self, pod: &Pod) -> Option<String> {
        self.api.annotation(PODS, pod.namespace(), pod.name(), REDIRECTION)
    }

    /// Waits until it says so.
    pub fn until_says(&self, pod: &Pod, expected: Option<&str>) -> Result<()> {
        let what = format!("the annotation of {} to be {expected:?}", pod.name());
        eventually(&what, LIMIT, || (self.says(pod).as_deref() == expected).then_some(()))
            .with_context(|| format!("it is {:?}", self.says(pod)))
    }

    /// Deletes the namespace's object; its pods stay.
    pub fn delete_namespace(&self) {
        self.api.delete(NAMESPACES, "", "demo");
    }
}

fn object(name: &str, node: &str, uid: &str, mode: Option<&str>, ips: &[IpAddr]) -> Value {
    let labels: serde_json::Map<_, _> = mode.iter().map(|mode| (MODE.to_owned(), json!(mode))).collect();
    let listed: Vec<Value> = ips.iter().map(|ip| json!({"ip": ip})).collect();
    let phase = if ips.is_empty() { "Pending" } else { "Running" };
    json!({
        "kind": "Pod",
        "metadata": {"name": name, "namespace": "demo", "uid": uid, "labels": labels},
        "spec": {"nodeName": node, "serviceAccountName": name},
        "status": {"phase": phase, "podIP": ips.first(), "podIPs": listed},
    })
}

/// The cgroup of a pod's one container.
#[derive(Debug)]
pub struct PodCgroup {
    /// The pod's UID.
    pub uid: String,
    root: PathBuf,
    pod: PathBuf,
    container: PathBuf,
}

impl PodCgroup {
    /// Makes one as the kubelet's driver `cgroupfs` does, and moves a process there.
    fn new(run: &Run, app: &App) -> Result<Self> {
        let pid = app.pid();
        // Unique on this machine, and of the shape that UIDs have.
        let uid = format!("c0ffee00-{:04x}-4000-8000-{pid:012x}", std::process::id() & 0xffff);
        let root = linux::cgroup::root()?;
        let pod = root.join("kubepods/burstable").join(format!("pod{uid}"));
        let container = pod.join(format!("{pid:064x}"));
        containers::write_down(run, &pod)?;
        fs::create_dir_all(&container).with_context(|| container.display().to_string())?;
        fs::write(container.join("cgroup.procs"), pid.to_string())?;
        Ok(Self { uid, root, pod, container })
    }
}

impl Drop for PodCgroup {
    fn drop(&mut self) {
        // A cgroup with processes in it cannot be removed.
        let members = fs::read_to_string(self.container.join("cgroup.procs")).unwrap_or_default();
        for pid in members.lines() {
            let _ = fs::write(self.root.join("cgroup.procs"), pid);
        }
        let _ = fs::remove_dir(&self.container);
        let _ = fs::remove_dir(&self.pod);
    }
}
