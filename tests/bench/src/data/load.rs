//! The processes of the traffic: this very program, started in a pod, in the group of the load.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::IpAddr;
use std::process::{Child, ChildStdin, ChildStdout, Stdio};

use anyhow::{Context as _, Result, ensure};
use harness::{Pod, command};

use super::cgroup::Group;
use super::slice::Order;
use super::world::{PORT, PORTS};
use crate::traffic::{GO, Outcome, READY};

/// A process with its ends.
#[derive(Debug)]
struct Spoken {
    child: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
}

/// A server; killed on drop.
#[derive(Debug)]
pub(super) struct Server {
    _process: Spoken,
}

/// A client that is ready; killed on drop.
#[derive(Debug)]
pub(super) struct Client(Spoken);

impl Server {
    pub(super) fn start(pod: &Pod, load: &Group) -> Result<Self> {
        let words = ["serve", "--port", &PORT.to_string(), "--ports", &PORTS.to_string()].map(str::to_owned);
        Ok(Self { _process: Spoken::start(pod, &words, load)? })
    }
}

impl Client {
    pub(super) fn start(pod: &Pod, to: &[IpAddr], order: &Order, load: &Group) -> Result<Self> {
        let mut words = vec!["load".to_owned(), order.kind.name().to_owned()];
        for address in to {
            words.extend(["--to".to_owned(), address.to_string()]);
        }
        let ports = order.ports.min(PORTS);
        for (name, value) in [
            ("--port", Some(PORT.to_string())),
            ("--ports", Some(ports.to_string())),
            ("--streams", Some(order.streams.to_string())),
            ("--seconds", Some(order.seconds.to_string())),
            ("--request", Some(order.request.to_string())),
            ("--reply", Some(order.reply.to_string())),
            ("--rate", order.rate.map(|rate| rate.to_string())),
            ("--count", order.count.map(|count| count.to_string())),
        ] {
            words.extend(value.into_iter().flat_map(|value| [name.to_owned(), value]));
        }
        Spoken::start(pod, &words, load).map(Self)
    }

    /// Has it begin.
    pub(super) fn go(&mut self) -> Result<()> {
        writeln!(self.0.input, "{GO}").context("telling a client to begin")
    }

    /// Waits for what comes of it.
    pub(super) fn outcome(mut self) -> Result<Outcome> {
        let line = self.0.line()?;
        serde_json::from_str(&line).with_context(|| format!("a client printed {line:?}"))
    }
}

impl Spoken {
    fn start(pod: &Pod, words: &[String], load: &Group) -> Result<Self> {
        let mut command = command::in_netns(pod.netns(), &std::env::current_exe()?);
        command.args(words).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("starting {words:?} in {}", pod.name()))?;
        let (input, output) = child.stdin.take().zip(child.stdout.take()).context("a child has pipes")?;
        let mut spoken = Self { child, input, output: BufReader::new(output) };
        load.enter(spoken.child.id())?;
        let line = spoken.line()?;
        ensure!(line == READY, "{words:?} in {} said {line:?} in place of {READY:?}", pod.name());
        Ok(spoken)
    }

    fn line(&mut self) -> Result<String> {
        let mut line = String::new();
        self.output.read_line(&mut line)?;
        ensure!(!line.is_empty(), "a process of the load ended early; it has said why");
        Ok(line.trim().to_owned())
    }
}

impl Drop for Spoken {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
