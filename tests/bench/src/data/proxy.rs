//! An agent that is measured: ours, or any program that keeps the same contract.
//!
//! The contract: it is started in the node's network namespace as `CMD run --mesh FILE --node NAME --run-dir DIR --bpffs DIR`;
//! it captures the running pods that the file's `enroll` names by their network namespaces, and carries what they send to
//! one another over mutual TLS on port 15008; it answers 200 to `GET /healthz/ready` on 127.0.0.1:15021 of the node once it does;
//! it ends on SIGTERM. The words of the file are those of `harness::mesh_file`. What else a program
//! needs is up to a script around it.

use std::fs::{self, File};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use harness::inside::in_netns;
use harness::wait::eventually_ok;
use harness::{Http, Node, client, command};
use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;

use super::cgroup::Group;
use crate::process::Process;

const READY_LIMIT: Duration = Duration::from_secs(60);
const STOP_LIMIT: Duration = Duration::from_secs(10);
const READINESS: u16 = 15021;

/// What is started.
#[derive(Clone, Debug)]
pub(super) struct Program {
    /// What the tables call it.
    pub(super) name: String,
    words: Vec<String>,
}

impl Program {
    /// Ours.
    pub(super) fn own() -> Result<Self> {
        let path = harness::node::binary("CULVERT_BIN", "culvert")?;
        Ok(Self { name: "culvert".to_owned(), words: vec![path.display().to_string()] })
    }

    /// One that a person names: a path and words, parted by blanks.
    pub(super) fn named(text: &str) -> Result<Self> {
        let words: Vec<String> = text.split_whitespace().map(str::to_owned).collect();
        let path = Path::new(words.first().context("--agent names no program")?);
        let name = path.file_stem().context("--agent names no program")?.to_string_lossy().into_owned();
        ensure!(path.is_file(), "--agent {}: there is no such file", path.display());
        Ok(Self { name, words })
    }
}

/// A running agent, in a group of its own.
#[derive(Debug)]
pub(super) struct Proxy {
    child: Child,
    log: PathBuf,
    pub(super) group: Group,
}

impl Proxy {
    /// Starts it, and waits until it is ready.
    pub(super) fn start(program: &Program, node: &Node, mesh: &Path, workers: Option<usize>) -> Result<Self> {
        fs::create_dir_all(node.agent_dir())?;
        let log = node.agent_dir().join("agent.log");
        let output = File::options().create(true).append(true).open(&log)?;
        let (first, rest) = program.words.split_first().context("a program has a path")?;
        let mut command = command::in_netns(node.netns(), Path::new(first));
        command.args(rest).arg("run").arg("--mesh").arg(mesh).args(["--node", node.name()]);
        command.arg("--run-dir").arg(node.agent_dir()).arg("--bpffs").arg(node.bpffs());
        if let Some(workers) = workers {
            command.env("ZTUNNEL_WORKER_THREADS", workers.to_string());
        }
        command.stdin(Stdio::null()).stdout(output.try_clone()?).stderr(output);
        let group = Group::new(node.name())?;
        let child = command.spawn().with_context(|| format!("starting {first}"))?;
        let mut proxy = Self { child, log, group };
        proxy.group.enter(proxy.child.id())?;
        proxy.wait_ready(node)?;
        Ok(proxy)
    }

    fn wait_ready(&mut self, node: &Node) -> Result<()> {
        let to = SocketAddr::from(([127, 0, 0, 1], READINESS));
        let ended = eventually_ok(&format!("the agent of {} to be ready", node.name()), READY_LIMIT, || {
            if let Some(status) = self.child.try_wait()? {
                return Ok(Some(status));
            }
            let stream = in_netns(node.netns(), || client::connect(to, client::LIMIT))??;
            let reply = Http::new(stream)?.get("/healthz/ready")?;
            ensure!(reply.status == 200, "{} {}", reply.status, reply.body.trim());
            Ok(None)
        });
        match ended {
            Ok(None) => Ok(()),
            Ok(Some(status)) => bail!("the agent of {} ended ({status}):\n{}", node.name(), self.tail()),
            Err(error) => Err(error.context(format!("the agent's log ends with:\n{}", self.tail()))),
        }
    }

    pub(super) fn process(&self) -> Process {
        Process(self.child.id())
    }

    /// The end of what it has logged.
    pub(super) fn tail(&self) -> String {
        let log = fs::read(&self.log).unwrap_or_default();
        let log = String::from_utf8_lossy(&log);
        let lines: Vec<&str> = log.lines().collect();
        lines.get(lines.len().saturating_sub(20)..).unwrap_or_default().join("\n")
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        // Asked first, so that it puts back what is not in the run's namespaces; killed at the limit.
        if i32::try_from(self.child.id())
            .is_ok_and(|id| signal::kill(Pid::from_raw(id), Signal::SIGTERM).is_ok())
        {
            let _ = command::wait(&mut self.child, STOP_LIMIT);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_called_by_the_name_of_its_file() {
        let own = std::env::current_exe().unwrap();
        let program = Program::named(&format!("{} --verbose", own.display())).unwrap();
        assert!(program.name.starts_with("culvert_bench"), "{program:?}");
        assert_eq!(program.words.len(), 2);
        assert!(Program::named("/nowhere/at/all").unwrap_err().to_string().contains("no such file"));
        assert!(Program::named(" ").is_err());
    }
}
