//! A node: a namespace on the wire with a bridge for its pods, a conflist, and a place for an agent.

use std::collections::HashMap;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use anyhow::{Context as _, Result};

use crate::cni::{self, CniError, Conflist, Sandbox};
use crate::command;
use crate::pod::Pod;
use crate::run::{Run, find_tool};
use crate::wire::{Station, name_of};

/// A handle of a node; clones are the same node.
#[derive(Debug, Clone)]
pub struct Node {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    run: Arc<Run>,
    name: String,
    station: Station,
}

impl Node {
    /// A node in a namespace that the caller has connected himself; [`crate::Wire`] makes others. Its pods are his to make then.
    pub fn new(run: &Arc<Run>, name: &str, station: Station) -> Self {
        Self { inner: Arc::new(Inner { run: Arc::clone(run), name: name.to_owned(), station }) }
    }

    /// Its name, which the agent is started with.
    pub fn name(&self) -> &str {
        &self.inner.name
    }

    /// The run it belongs to.
    pub fn run(&self) -> &Arc<Run> {
        &self.inner.run
    }

    /// Its namespace.
    pub fn netns(&self) -> &Path {
        &self.inner.station.netns
    }

    /// Its addresses on the wire.
    pub fn addresses(&self) -> (Ipv4Addr, Ipv6Addr) {
        self.inner.station.addresses()
    }

    /// The agent's run directory; the socket for the plugin is `cni.sock` in it.
    pub fn agent_dir(&self) -> PathBuf {
        self.run().dir().join(self.name())
    }

    /// The socket that the node's conflist names.
    pub fn cni_socket(&self) -> PathBuf {
        self.agent_dir().join("cni.sock")
    }

    /// Directory of the agent's pins.
    pub fn bpffs(&self) -> PathBuf {
        self.run().bpffs().join(self.name())
    }

    /// The addresses that host-local gives to the node's `count`-th pod (from 1), so that they can be written into a
    /// mesh file before the pod is there.
    pub fn pod_addresses(&self, count: u8) -> (Ipv4Addr, Ipv6Addr) {
        let number = self.inner.station.number;
        let (subnet, host) = (u16::from(number), u16::from(count) + 1);
        (
            Ipv4Addr::new(10, 1, number, count.saturating_add(1)),
            Ipv6Addr::new(0x2001, 0xdb8, 1, subnet, 0, 0, 0, host),
        )
    }

    /// Connects a new pod through the conflist with culvert-cni at its end.
    pub fn add_pod(&self, name: &str, namespace: &str) -> Result<Pod, CniError> {
        self.add_pod_with(name, namespace, self.conflist()?)
    }

    /// Connects a new pod without culvert-cni.
    pub fn add_plain_pod(&self, name: &str, namespace: &str) -> Result<Pod, CniError> {
        self.add_pod_with(name, namespace, self.plain_conflist())
    }

    /// Connects a new pod through a conflist of the caller's; on failure nothing of the pod is left.
    pub fn add_pod_with(&self, name: &str, namespace: &str, conflist: Conflist) -> Result<Pod, CniError> {
        let netns = self.run().add_netns(&format!("{}-{name}", self.name()))?;
        let container_id = name_of(&netns);
        let sandbox = Sandbox { container_id, netns, name: name.to_owned(), namespace: namespace.to_owned() };
        let added = conflist
            .add(&sandbox)
            .and_then(|result| Ok(Pod::new(self.clone(), sandbox.clone(), conflist, result)?));
        if added.is_err() {
            // What is left of it is found by the run's name.
            let _ = command::ip(&format!("netns del {}", sandbox.container_id));
        }
        added
    }

    /// bridge, host-local, culvert-cni.
    pub fn conflist(&self) -> Result<Conflist> {
        let plugin = culvert_cni()?;
        let mut list = self.plain_conflist();
        list.plugins.push(cni::culvert_entry(&self.cni_socket()));
        list.path.push(plugin.parent().context("the plugin's path has a directory")?.to_owned());
        Ok(list)
    }

    /// bridge, host-local.
    pub fn plain_conflist(&self) -> Conflist {
        let (v4, v6) = self.inner.station.pod_subnets();
        let state = self.run().dir().join("ipam").join(self.name());
        Conflist {
            name: format!("culvert-{}", self.name()),
            cni_version: "1.0.0".to_owned(),
            plugins: vec![cni::bridge_entry((&v4, &v6), &state)],
            node: self.netns().to_owned(),
            path: vec![PathBuf::from(cni::PLUGIN_DIR)],
        }
    }
}

/// The plugin's binary: `CULVERT_CNI_BIN`, or the one in `PATH`.
pub fn culvert_cni() -> Result<PathBuf> {
    binary("CULVERT_CNI_BIN", "culvert-cni")
}

/// Paths that this process was told; the environment cannot be written to without `unsafe`.
static TOLD: OnceLock<HashMap<&'static str, PathBuf>> = OnceLock::new();

/// Uses these programs instead of what `CULVERT_BIN`, `CULVERT_CNI_BIN`, `POD_APP_BIN` and `CONTROL_PLANE_BIN` say. The
/// first call counts.
pub fn use_binaries(paths: impl IntoIterator<Item = (&'static str, PathBuf)>) {
    TOLD.get_or_init(|| paths.into_iter().collect());
}

/// A binary of ours: by the variable, beside the running program, or in `PATH`.
pub fn binary(variable: &str, name: &str) -> Result<PathBuf> {
    if let Some(path) = TOLD.get().and_then(|told| told.get(variable)) {
        return Ok(path.clone());
    }
    if let Some(path) = std::env::var_os(variable) {
        return std::path::absolute(path).with_context(|| variable.to_owned());
    }
    // Beside the running program, or above its directories deps and examples.
    let own = std::env::current_exe()?;
    let beside = own.ancestors().skip(1).take(2).map(|dir| dir.join(name)).find(|file| file.is_file());
    beside.or_else(|| find_tool(name)).with_context(|| {
        format!("{name} is not built: cargo xtask test and cargo xtask demo build it, or set {variable} to its path")
    })
}
