//! The control plane of a mesh as a process of its own, in a namespace that the nodes reach.
//!
//! A handle outlives the process: it can be killed and started again, at the same address and with the same root.
//! Dropping it kills the process.

use std::fs::{self, File};
use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Stdio};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use serde_json::json;

use crate::command;
use crate::mesh_file::MeshFile;
use crate::node::binary;
use crate::run::Run;
use crate::wire::Station;

/// Where istiod listens, too.
const PORT: u16 = 15012;
/// How long an answer may take, on a busy machine.
const LIMIT: Duration = Duration::from_secs(120);

/// A control plane.
#[derive(Debug)]
pub struct ControlPlane {
    /// Keeps the directory.
    _run: Arc<Run>,
    netns: PathBuf,
    address: SocketAddr,
    dir: PathBuf,
    serves: Serves,
    process: Option<Process>,
}

/// What it tells its clients.
#[derive(Debug)]
enum Serves {
    /// A mesh in a file.
    Mesh(PathBuf),
    /// A recording in a file, as far as it is let out.
    Recording(PathBuf),
}

#[derive(Debug)]
struct Process {
    child: Child,
    commands: ChildStdin,
    answers: Receiver<String>,
}

impl ControlPlane {
    /// Starts one on a host of the wire that serves this mesh, and waits until it listens. What it does not know, which is all but
    /// workloads, services and policies in plain words, is refused.
    pub fn start(run: &Arc<Run>, host: &Station, mesh: &MeshFile) -> Result<Self> {
        let path = dir_of(run)?.join("mesh.json");
        write(&path, mesh)?;
        Self::serving(run, host, Serves::Mesh(path))
    }

    /// Starts one on a host of the wire that plays a recording, nothing of it before [`Self::play`], and waits until it listens.
    pub fn replaying(run: &Arc<Run>, host: &Station, recording: &Path) -> Result<Self> {
        Self::serving(run, host, Serves::Recording(recording.to_owned()))
    }

    fn serving(run: &Arc<Run>, host: &Station, serves: Serves) -> Result<Self> {
        let address = SocketAddr::new(IpAddr::V4(host.addresses().0), PORT);
        let (dir, netns) = (dir_of(run)?, host.netns.clone());
        let mut plane = Self { _run: Arc::clone(run), netns, address, dir, serves, process: None };
        plane.restart()?;
        Ok(plane)
    }

    /// Starts it anew, with its root, and another recording.
    pub fn replay(&mut self, recording: &Path) -> Result<()> {
        self.serves = Serves::Recording(recording.to_owned());
        self.restart()
    }

    /// Lets so many responses of its recording out, and waits until so many clients have accepted each of them.
    pub fn play(&mut self, responses: usize, clients: usize) -> Result<()> {
        self.tell(&format!("play {responses} {clients}"))
    }

    /// Where agents reach it.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// The directory of its authority: `root-cert.pem` and `root-key.pem`.
    pub fn authority(&self) -> &Path {
        &self.dir
    }

    /// The file with the root of its certificates.
    pub fn roots(&self) -> PathBuf {
        self.dir.join("root-cert.pem")
    }

    /// Kills it as `kill -9` does, and waits until the process is gone.
    pub fn kill9(&mut self) -> Result<()> {
        if let Some(mut process) = self.process.take() {
            process.child.kill()?;
            command::wait(&mut process.child, LIMIT)?;
        }
        Ok(())
    }

    /// Starts it anew, after it was killed if it runs.
    pub fn restart(&mut self) -> Result<()> {
        self.kill9()?;
        let program = binary("CONTROL_PLANE_BIN", "control-plane")?;
        let log = File::options().create(true).append(true).open(self.dir.join("log"))?;
        let mut command = command::in_netns(&self.netns, &program);
        command.arg("--listen").arg(self.address.to_string());
        command.arg("--name").arg(self.address.ip().to_string());
        command.arg("--dir").arg(&self.dir);
        match &self.serves {
            Serves::Mesh(path) => command.arg("--mesh").arg(path),
            Serves::Recording(path) => command.arg("--replay").arg(path),
        };
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(log);
        let mut child = command.spawn().with_context(|| format!("starting {}", program.display()))?;
        let commands = child.stdin.take().context("a process that was given an input has one")?;
        let output = child.stdout.take().context("a process that was given an output has one")?;
        let (sender, answers) = channel();
        std::thread::spawn(move || {
            // Ends with the process, or with the handle.
            BufReader::new(output).lines().map_while(Result::ok).try_for_each(|line| sender.send(line))
        });
        let process = self.process.insert(Process { child, commands, answers });
        let first = process.answers.recv_timeout(LIMIT);
        if !first.as_ref().is_ok_and(|line| line.starts_with("listening ")) {
            bail!("the control plane does not listen ({first:?}): {}", self.log());
        }
        Ok(())
    }

    /// Waits until so many clients are there and have accepted everything.
    pub fn synced_by(&mut self, clients: usize) -> Result<()> {
        self.tell(&format!("synced {clients}"))
    }

    /// Adds the mesh of a file.
    pub fn load(&mut self, path: &Path) -> Result<()> {
        self.tell(&format!("load {}", path.display()))
    }

    /// Has it serve this mesh after its next start, and, if it runs, at once what is new in it.
    pub fn keep(&mut self, mesh: &MeshFile) -> Result<()> {
        let path = self.dir.join("mesh.json");
        write(&path, mesh)?;
        if self.process.is_some() { self.load(&path) } else { Ok(()) }
    }

    /// Gives it a command, and waits until it is done.
    pub fn tell(&mut self, words: &str) -> Result<()> {
        let process = self.process.as_mut().context("the control plane is not running")?;
        writeln!(process.commands, "{words}")?;
        // The command's own limit is as long as ours.
        match process.answers.recv_timeout(2 * LIMIT).as_deref() {
            Ok("ok") => Ok(()),
            other => bail!("the control plane answers {words:?} with {other:?}: {}", self.log()),
        }
    }

    fn log(&self) -> String {
        fs::read_to_string(self.dir.join("log")).unwrap_or_default().trim().to_owned()
    }
}

fn write(path: &Path, mesh: &MeshFile) -> Result<()> {
    let MeshFile { workloads, services, policies, .. } = mesh;
    let mesh = json!({ "workloads": workloads, "services": services, "policies": policies });
    fs::write(path, mesh.to_string()).with_context(|| path.display().to_string())
}

/// Where its root, its mesh and its log lie.
fn dir_of(run: &Run) -> Result<PathBuf> {
    let dir = run.dir().join("control-plane");
    fs::create_dir_all(&dir)?;
    Ok(dir)
}

impl Drop for ControlPlane {
    fn drop(&mut self) {
        // The run's teardown finds whatever survives this.
        let _ = self.kill9();
    }
}
