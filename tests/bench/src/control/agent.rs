//! The agent as a process that is started to be measured, bound to one CPU.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use harness::{Agent, Node};
use linux::netns::Netns;
use linux::scheduling::be_nice;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use crate::process::Process;

const READINESS: u16 = 15021;
/// How long a start may take before it is no start.
const LIMIT: Duration = Duration::from_secs(60);
/// The niceness of what is measured, and of what is only needed for it.
const FIRST: i32 = -19;
const LAST: i32 = 0;
/// Between two looks at readiness.
const PAUSE: Duration = Duration::from_micros(500);

/// A running agent, and how long it took from exec to ready.
pub(super) struct Started {
    pub(super) agent: Agent,
    pub(super) process: Process,
    pub(super) took: Duration,
}

/// Starts the agent of a node on these CPUs, and waits until it answers that it is ready.
pub(super) fn start(on: On<'_>, node: &Node, mesh: &Path, extra: &[&str]) -> Result<Started> {
    let begin = Instant::now();
    let mut agent = on.within(|| Agent::spawn(node, mesh, extra))?;
    let netns = Netns::open(node.netns())?;
    // One thread that stays in the namespace: a look must not cost more than it measures.
    let took = std::thread::scope(|scope| {
        let watch = || netns.run(|| wait_ready(begin)).context("entering the node")?;
        scope.spawn(watch).join().map_err(|_| anyhow::anyhow!("the watching thread panicked"))?
    });
    let took = match took {
        Ok(took) => took,
        Err(error) => {
            agent.wait_ready()?;
            return Err(error);
        }
    };
    let process = Process(agent.pid().context("the agent has ended")?);
    Ok(Started { agent, process, took })
}

fn wait_ready(begin: Instant) -> Result<Duration> {
    let to = std::net::SocketAddr::from(([127, 0, 0, 1], READINESS));
    loop {
        let ready = harness::client::connect(to, LIMIT)
            .ok()
            .and_then(|stream| harness::Http::new(stream).ok()?.get("/healthz/ready").ok())
            .is_some_and(|reply| reply.status == 200);
        if ready {
            return Ok(begin.elapsed());
        }
        ensure!(begin.elapsed() < LIMIT, "the agent was not ready within {LIMIT:?}");
        std::thread::sleep(PAUSE);
    }
}

/// The CPUs of this process: the last one is the agent's, the others are for what is around it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Cpus {
    all: CpuSet,
    agent: CpuSet,
    others: CpuSet,
}

impl Cpus {
    /// Leaves the last CPU to the agent; where there is only one, both share it. This process and what it starts go before
    /// the machine's other work.
    pub(super) fn divide() -> Result<Self> {
        be_nice(FIRST).context("going before the machine's other work")?;
        let allowed = sched_getaffinity(Pid::from_raw(0)).context("asking for the CPUs")?;
        let last = (0..CpuSet::count()).rev().find(|cpu| allowed.is_set(*cpu).unwrap_or(false));
        let last = last.context("no CPU is allowed to this process")?;
        let (mut agent, mut others) = (CpuSet::new(), allowed);
        agent.set(last)?;
        others.unset(last)?;
        if (0..CpuSet::count()).all(|cpu| !others.is_set(cpu).unwrap_or(false)) {
            others = agent;
        }
        sched_setaffinity(Pid::from_raw(0), &others).context("leaving the last CPU")?;
        Ok(Self { all: allowed, agent, others })
    }

    /// What is started within leaves the CPUs to everything else of this benchmark.
    pub(super) fn behind<T>(&self, start: impl FnOnce() -> Result<T>) -> Result<T> {
        be_nice(LAST).context("going behind")?;
        let started = start();
        be_nice(FIRST).context("going before the machine's other work")?;
        started
    }
}

/// Where an agent is to run.
#[derive(Clone, Copy, Debug)]
pub(super) enum On<'a> {
    /// On the agent's CPU.
    One(&'a Cpus),
    /// On all of them.
    All(&'a Cpus),
}

impl On<'_> {
    /// What is started within runs there.
    fn within<T>(self, start: impl FnOnce() -> Result<T>) -> Result<T> {
        let (there, back) = match self {
            Self::One(cpus) => (cpus.agent, cpus.others),
            Self::All(cpus) => (cpus.all, cpus.others),
        };
        sched_setaffinity(Pid::from_raw(0), &there).context("choosing the agent's CPUs")?;
        let started = start();
        sched_setaffinity(Pid::from_raw(0), &back).context("leaving the agent's CPUs")?;
        started
    }
}
