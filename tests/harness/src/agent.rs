//! The agent of a node: the real binary, started in the node's namespace with its output in a file.
//!
//! A handle outlives the process: it can be killed, started again, and asked for what it logged over all its lives.
//! Dropping it kills the process; pins are left for [`Agent::cleanup`] and the run's teardown.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, ExitStatus, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail};
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

use crate::client::{self, Http, Reply};
use crate::command;
use crate::inside::in_netns;
use crate::node::{Node, binary};
use crate::wait::{eventually, eventually_ok};

/// Loading the programs takes the verifier a moment; a debug build on a busy machine takes longer.
const READY_LIMIT: Duration = Duration::from_secs(30);
const STOP_LIMIT: Duration = Duration::from_secs(20);
const TAKE_OVER: &str = "--take-over";
const METRICS_PORT: u16 = 15020;
const READINESS_PORT: u16 = 15021;

/// The agent of one node.
#[derive(Debug)]
pub struct Agent {
    node: Node,
    mesh: PathBuf,
    extra: Vec<String>,
    child: Option<Child>,
}

impl Agent {
    /// Starts the agent and waits until it says that it is ready.
    pub fn start(node: &Node, mesh: &Path) -> Result<Self> {
        let mut agent = Self::spawn(node, mesh, &[])?;
        agent.wait_ready()?;
        Ok(agent)
    }

    /// Starts the agent with more arguments and does not wait.
    pub fn spawn(node: &Node, mesh: &Path, extra: &[&str]) -> Result<Self> {
        let extra = extra.iter().map(|&word| word.to_owned()).collect();
        let mut agent = Self { node: node.clone(), mesh: mesh.to_owned(), extra, child: None };
        agent.launch()?;
        Ok(agent)
    }

    /// The words that the agent is started with.
    pub fn command_line(&self) -> Result<Vec<String>> {
        let program = binary("CULVERT_BIN", "culvert")?;
        let (mesh, dir, bpffs) = (self.mesh.display(), self.node.agent_dir(), self.node.bpffs());
        let words = [
            format!("{} run --mesh {mesh} --node {}", program.display(), self.node.name()),
            format!("--run-dir {} --bpffs {}", dir.display(), bpffs.display()),
        ];
        let own = words.iter().flat_map(|line| line.split(' ')).map(str::to_owned);
        Ok(own.chain(self.extra.iter().cloned()).collect())
    }

    fn launch(&mut self) -> Result<()> {
        if self.is_running() {
            bail!("the agent of {} is running already", self.node.name());
        }
        fs::create_dir_all(self.node.agent_dir())?;
        let words = self.command_line()?;
        let (program, arguments) = words.split_first().context("a command line has a program")?;
        let log = File::options().create(true).append(true).open(self.log_path())?;
        let mut command = command::in_netns(self.node.netns(), Path::new(program));
        command.args(arguments).stdin(Stdio::null()).stdout(log.try_clone()?).stderr(log);
        self.child = Some(command.spawn().with_context(|| format!("starting {program}"))?);
        Ok(())
    }

    /// Waits until the agent answers on its readiness port.
    pub fn wait_ready(&mut self) -> Result<()> {
        let name = self.node.name().to_owned();
        let ready = eventually_ok(&format!("the agent of {name} to be ready"), READY_LIMIT, || {
            if let Some(status) = self.exited()? {
                return Ok(Err(status));
            }
            let reply = self.get(READINESS_PORT, "/healthz/ready")?;
            if reply.status == 200 { Ok(Ok(())) } else { bail!("{} {}", reply.status, reply.body.trim()) }
        });
        match ready {
            Ok(Ok(())) => Ok(()),
            Ok(Err(status)) => bail!("the agent of {name} ended ({status}):\n{}", self.log_tail()),
            Err(error) => Err(error.context(format!("the agent's log ends with:\n{}", self.log_tail()))),
        }
    }

    /// The status of a process that has ended.
    pub fn exited(&mut self) -> Result<Option<ExitStatus>> {
        self.child.as_mut().map_or(Ok(None), |child| Ok(child.try_wait()?))
    }

    /// Is the process there?
    pub fn is_running(&mut self) -> bool {
        self.child.as_mut().is_some_and(|child| matches!(child.try_wait(), Ok(None)))
    }

    /// Its process; none after it was ended through this handle.
    pub fn pid(&self) -> Option<u32> {
        self.child.as_ref().map(Child::id)
    }

    /// Kills it as `kill -9` does, and waits until the process is gone.
    pub fn kill9(&mut self) -> Result<()> {
        if let Some(mut child) = self.child.take() {
            child.kill()?;
            command::wait(&mut child, STOP_LIMIT)?;
        }
        Ok(())
    }

    /// Asks it to end (SIGTERM) and waits for that.
    pub fn stop(&mut self) -> Result<ExitStatus> {
        self.terminate()?;
        self.wait_exit(STOP_LIMIT).context("the agent after SIGTERM")
    }

    /// Asks it to end (SIGTERM) and does not wait.
    pub fn terminate(&self) -> Result<()> {
        self.signal(Signal::SIGTERM)
    }

    /// Takes the processor from it (SIGSTOP): it lives, holds what it holds, and does nothing any more. It can be killed.
    pub fn suspend(&self) -> Result<()> {
        self.signal(Signal::SIGSTOP)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = self.pid().context("the agent is not running")?;
        Ok(signal::kill(Pid::from_raw(pid.cast_signed()), signal)?)
    }

    /// Waits for the process to end by itself.
    pub fn wait_exit(&mut self, limit: Duration) -> Result<ExitStatus> {
        let mut child = self.child.take().context("the agent is not running")?;
        command::wait(&mut child, limit)
    }

    /// Starts it anew, after [`Self::kill9`] or [`Self::stop`], and waits until it is ready.
    pub fn restart(&mut self) -> Result<()> {
        self.start_anew()?;
        self.wait_ready()
    }

    /// The same without waiting.
    pub fn start_anew(&mut self) -> Result<()> {
        self.launch()
    }

    /// Starts another process, with the same arguments, that asks this one to hand over, and does not wait. This handle is the new one's from then on;
    /// the one that is returned is the old one's.
    pub fn succeed(&mut self) -> Result<Self> {
        let own = self.extra.iter().map(String::as_str).filter(|word| *word != TAKE_OVER);
        let extra: Vec<&str> = own.chain([TAKE_OVER]).collect();
        let mut next = Self::spawn(&self.node, &self.mesh, &extra)?;
        std::mem::swap(self, &mut next);
        Ok(next)
    }

    /// Lets it live on after this handle and this process.
    pub fn detach(mut self) {
        self.child = None;
    }

    /// Removes pins that an ended agent left.
    pub fn cleanup(&mut self) -> Result<()> {
        self.kill9()?;
        match fs::remove_dir_all(self.node.bpffs()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error).context("removing pins"),
            _ => Ok(()),
        }
    }

    /// Where its output goes.
    pub fn log_path(&self) -> PathBuf {
        self.node.agent_dir().join("agent.log")
    }

    /// All it has written, over all its lives.
    pub fn log(&self) -> String {
        fs::read(self.log_path())
            .map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
            .unwrap_or_default()
    }

    /// Lines of the log that contain all of `parts`.
    pub fn log_lines(&self, parts: &[&str]) -> Vec<String> {
        self.log()
            .lines()
            .filter(|line| parts.iter().all(|part| line.contains(part)))
            .map(str::to_owned)
            .collect()
    }

    /// Waits for a line that contains all of `parts`.
    pub fn wait_for_log(&self, parts: &[&str], limit: Duration) -> Result<String> {
        let what = format!("a line with {parts:?} in the log of {}", self.node.name());
        eventually(&what, limit, || self.log_lines(parts).pop()).with_context(|| self.log_tail())
    }

    /// Its metrics, as a scraper gets them.
    pub fn metrics(&self) -> Result<String> {
        Ok(self.get(METRICS_PORT, "/metrics")?.body)
    }

    /// A request to one of its ports, from the node.
    pub fn get(&self, port: u16, path: &str) -> Result<Reply> {
        let to = SocketAddr::from(([127, 0, 0, 1], port));
        let stream = in_netns(self.node.netns(), || client::connect(to, client::LIMIT))?;
        Http::new(stream.with_context(|| format!("{to}"))?)?.get(path)
    }

    fn log_tail(&self) -> String {
        let log = self.log();
        let lines: Vec<_> = log.lines().collect();
        lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join("\n")
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        // The run's teardown finds whatever survives this.
        let _ = self.kill9();
    }
}
