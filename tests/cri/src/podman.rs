//! podman as another runtime of a node, with its own files, its own network and the same plugins.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use harness::command::{self, Ended};
use harness::run::find_tool;
use harness::{cni, containers};
use serde_json::{Value, json};

use crate::calls::Calls;
use crate::{CriNode, node, rootfs};

/// podman on a node; its containers go with this.
#[derive(Debug)]
pub struct Podman<'a> {
    node: &'a CriNode,
    dir: PathBuf,
    /// Which plugins were called.
    pub calls: Calls,
}

impl<'a> Podman<'a> {
    /// The name of its network.
    pub const NETWORK: &'static str = "podnet";

    /// Writes its configuration.
    pub fn new(node: &'a CriNode) -> Result<Self> {
        let dir = node.node.run().dir().join(node.node.name()).join("podman");
        fs::create_dir_all(dir.join("net.d"))?;
        let calls = Calls::record(&node::plugins()?, &dir.join("bin"), &dir.join("calls"))?;
        let ours = cni::culvert_entry(&node.node.cni_socket());
        fs::write(dir.join("net.d/10-podnet.conflist"), conflist(&dir, &ours).to_string())?;
        let runc = find_tool("runc").context("runc is missing: apt-get install runc")?;
        fs::write(dir.join("containers.conf"), containers_configuration(&dir, &runc))?;
        fs::write(dir.join("storage.conf"), storage_configuration(&dir))?;
        Ok(Self { node, dir, calls })
    }

    /// Starts a container of the pods' root file system, which does nothing.
    pub fn run(&self, name: &str) -> Result<Ended> {
        let root = node::rootfs(self.node.node.run())?.display().to_string();
        let parent = format!("/{}/podman", containers::cgroup_of(self.node.node.run().id()));
        let own = ["run", "--detach", "--name", name, "--cgroup-parent", &parent];
        let what = ["--network", Self::NETWORK, "--read-only", "--rootfs", &root, rootfs::APP, "hold"];
        self.call(&[own.as_slice(), &what].concat())
    }

    /// Runs podman in the node, for at most the harness's limit of a command.
    pub fn call(&self, words: &[&str]) -> Result<Ended> {
        let program = find_tool("podman").context("podman is missing: apt-get install podman")?;
        let mut podman = command::in_netns(self.node.node.netns(), &program);
        podman.env("CONTAINERS_CONF", self.dir.join("containers.conf"));
        podman.env("CONTAINERS_STORAGE_CONF", self.dir.join("storage.conf"));
        command::finish(podman.args(words), b"")
    }
}

impl Drop for Podman<'_> {
    fn drop(&mut self) {
        // The run's teardown finds the processes of what survives this.
        let _ = self.call(&["rm", "--all", "--force", "--time", "0"]);
    }
}

fn conflist(dir: &Path, ours: &Value) -> Value {
    let bridge = json!({
        "type": "bridge", "bridge": "podman0", "isGateway": true,
        "ipam": { "type": "host-local", "dataDir": dir.join("ipam"), "ranges": [[{ "subnet": "10.200.0.0/24" }]],
                  "routes": [{ "dst": "0.0.0.0/0" }] },
    });
    json!({ "cniVersion": "1.0.0", "name": Podman::NETWORK, "plugins": [bridge, ours] })
}

/// Networks by CNI, cgroups by their file system, and limits that a process in a container itself may set.
fn containers_configuration(dir: &Path, runc: &Path) -> String {
    let (dir, runc, network) = (dir.display(), runc.display(), Podman::NETWORK);
    format!(
        r#"[containers]
default_ulimits = ["nofile=1024:4096", "nproc=1024:4096"]
[network]
network_backend = "cni"
cni_plugin_dirs = ["{dir}/bin"]
network_config_dir = "{dir}/net.d"
default_network = "{network}"
[engine]
cgroup_manager = "cgroupfs"
events_logger = "file"
runtime = "runc"
tmp_dir = "{dir}/tmp"
[engine.runtimes]
runc = ["{runc}"]
"#
    )
}

fn storage_configuration(dir: &Path) -> String {
    let dir = dir.display();
    format!("[storage]\ndriver = \"vfs\"\ngraphroot = \"{dir}/root\"\nrunroot = \"{dir}/run\"\n")
}
