//! A containerd for one node, in the node's network namespace, with all of its files below one directory.
//!
//! The handle outlives the process: it can be killed and started again, which its containers survive. Dropping it kills the
//! process; containers that are still there go with the run.

use std::fs::{self, File};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result, bail, ensure};
use harness::command;
use harness::run::find_tool;
use harness::wait::eventually_ok;

use crate::cri::Cri;
use crate::{LIMIT, image};

/// Where it finds things.
#[derive(Debug, Clone)]
pub struct Places {
    /// The node's network namespace.
    pub netns: PathBuf,
    /// For all of its files.
    pub dir: PathBuf,
    /// Of plugins.
    pub plugins: PathBuf,
    /// Of conflists.
    pub conflists: PathBuf,
}

/// A running containerd.
#[derive(Debug)]
pub struct Containerd {
    places: Places,
    child: Option<Child>,
}

impl Containerd {
    /// Writes its configuration and starts it; waits until its network is ready.
    pub fn start(places: Places) -> Result<Self> {
        fs::create_dir_all(&places.dir)?;
        fs::write(places.dir.join("config.toml"), configuration(&places))?;
        let mut started = Self { places, child: None };
        share(&started.namespaces())?;
        started.restart()?;
        Ok(started)
    }

    /// Where it listens.
    pub fn socket(&self) -> PathBuf {
        self.places.dir.join("sock")
    }

    /// Where it mounts the network namespaces of pods.
    pub fn namespaces(&self) -> PathBuf {
        self.places.dir.join("state/io.containerd.grpc.v1.cri/netns")
    }

    /// Kills it as `kill -9` does; containers run on.
    pub fn kill9(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            command::wait(&mut child, LIMIT)?;
        }
        Ok(())
    }

    /// Starts it anew, after it was killed if it runs, and waits until its network is ready.
    pub fn restart(&mut self) -> Result<()> {
        self.kill9()?;
        let program =
            find_tool("containerd").context("containerd is missing: apt-get install containerd runc")?;
        let log = File::options().create(true).append(true).open(self.log_path())?;
        let mut command = command::in_netns(&self.places.netns, &program);
        command.arg("--config").arg(self.places.dir.join("config.toml"));
        // Of its own process group: what is typed at the terminal of a test is not for it.
        command.stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log).process_group(0);
        self.child = Some(command.spawn().context("starting containerd")?);
        let cri = Cri::new(&self.socket())?;
        eventually_ok("containerd's network to be ready", LIMIT, || {
            if let Some(status) = self.child.as_mut().and_then(|child| child.try_wait().ok().flatten()) {
                bail!("containerd has ended: {status}");
            }
            let status = cri.status()?.status.context("a status")?;
            let waits = status.conditions.iter().find(|condition| !condition.status);
            ensure!(waits.is_none(), "{waits:?}");
            Ok(())
        })
        .with_context(|| self.log_tail())
    }

    /// Imports an image from an archive.
    pub fn import(&self, archive: &Path) -> Result<()> {
        let ctr = find_tool("ctr").context("ctr is missing: apt-get install containerd")?;
        let mut import = Command::new(ctr);
        import.arg("--address").arg(self.socket()).args(["--namespace", "k8s.io", "images", "import"]);
        command::run(import.arg(archive)).map(drop)
    }

    fn log_path(&self) -> PathBuf {
        self.places.dir.join("log")
    }

    /// The last that it wrote.
    pub fn log_tail(&self) -> String {
        let log = fs::read_to_string(self.log_path()).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        lines.get(lines.len().saturating_sub(15)..).unwrap_or_default().join("\n")
    }
}

impl Drop for Containerd {
    fn drop(&mut self) {
        // The run's teardown finds whatever survives this.
        let _ = self.kill9();
    }
}

/// Has what is mounted below a directory be seen in containers, too, that ask for it; where systemd mounts, all of `/` is so.
fn share(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory)?;
    command::run(Command::new("mount").arg("--bind").arg(directory).arg(directory))?;
    command::run(Command::new("mount").arg("--make-shared").arg(directory)).map(drop)
}

/// What differs from the defaults: everything below one directory, no score of the out-of-memory killer below its own, cgroups
/// by their file system, and no plugins that look for devices.
fn configuration(places: &Places) -> String {
    let Places { dir, plugins, conflists, .. } = places;
    let (dir, plugins, conflists) = (dir.display(), plugins.display(), conflists.display());
    let image = image::NAME;
    format!(
        r#"version = 2
root = "{dir}/root"
state = "{dir}/state"
oom_score = 0
disabled_plugins = ["io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.zfs", "io.containerd.internal.v1.opt"]
[grpc]
address = "{dir}/sock"
[plugins."io.containerd.grpc.v1.cri"]
sandbox_image = "{image}"
restrict_oom_score_adj = true
disable_tcp_service = true
stream_server_address = "127.0.0.1"
netns_mounts_under_state_dir = true
[plugins."io.containerd.grpc.v1.cri".cni]
bin_dir = "{plugins}"
conf_dir = "{conflists}"
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "overlayfs"
default_runtime_name = "runc"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
runtime_type = "io.containerd.runc.v2"
[plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
SystemdCgroup = false
Root = "{dir}/runc"
"#
    )
}
