//! The checks, in their order: each stands on what the ones before it left.

mod guard;
mod idle;
mod life;
mod pair;
mod steer;
mod weather;

use std::net::SocketAddr;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use linux::netns::Netns;

use self::pair::Pair;
use crate::call::{Call, call};
use crate::world::World;
use crate::{failure, guest};

/// Tells how far the checks are.
#[derive(Debug, Default)]
struct Progress {
    passed: usize,
}

impl Progress {
    /// Runs one check, and tells its name and how it went.
    fn check(&mut self, name: &str, work: impl FnOnce() -> Result<()>) -> Result<()> {
        let started = Instant::now();
        match work() {
            Ok(()) => {
                self.passed += 1;
                println!("  ok      {name} ({} ms)", started.elapsed().as_millis());
                Ok(())
            }
            Err(error) => {
                println!("  FAILED  {name} ({} ms)", started.elapsed().as_millis());
                Err(error.context(name.to_owned()))
            }
        }
    }

    /// The same for a failure that is documented, whose words are shown.
    fn refusal(&mut self, name: &str, work: impl FnOnce() -> Result<String>) -> Result<()> {
        let mut words = String::new();
        self.check(name, || {
            words = work()?;
            Ok(())
        })?;
        println!("            says: {words}");
        Ok(())
    }
}

/// Runs them all; the first that fails ends them.
pub(crate) fn run() -> Result<()> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    println!("kernel {}", release.trim());
    let world = World::new().context("making namespaces, a wire and servers")?;
    let mut progress = Progress::default();
    let outcome = all(&mut progress, &world);
    println!("{} checks passed", progress.passed);
    outcome
}

fn all(progress: &mut Progress, world: &World) -> Result<()> {
    progress.check("the kernel has what capture needs", || Ok(redirect::probe::kernel()?))?;
    progress.refusal("without cgroup v2 the agent says so", failure::without_cgroup)?;
    progress.refusal("without privileges the agent says so", failure::without_privilege)?;
    progress.refusal("a pod without an address is told", || failure::without_address(&world.bare))?;
    guard::needs(progress)?;
    life::run(progress, world)?;
    if !guest::is_one() {
        return Ok(());
    }
    let mut pair = Pair::new(world.families)?;
    progress.check("two agents capture a pod each and are ready", || pair.start_agents())?;
    let outcome = with_agents(progress, &pair);
    if outcome.is_err() {
        for agent in &pair.agents {
            println!("the log of the agent {} ends with:\n{}", agent.name, agent.tail()?);
        }
    }
    outcome
}

fn with_agents(progress: &mut Progress, pair: &Pair) -> Result<()> {
    if let Some(count) = guest::connections()? {
        idle::run(progress, pair, count)?;
    }
    weather::run(progress, pair)
}

/// A connection that must come about.
fn connected(from: &Netns, to: SocketAddr) -> Result<Call> {
    call(from, to, None).with_context(|| format!("connecting to {to}"))
}

/// A connection that must be refused, and at once.
fn refused(from: &Netns, to: SocketAddr) -> Result<()> {
    match call(from, to, None) {
        Ok(call) => bail!("the connection to {to} was not refused: {:?}", call.lines),
        Err(error) if error.kind() == std::io::ErrorKind::ConnectionRefused => Ok(()),
        Err(error) => Err(error).with_context(|| format!("connecting to {to} was to be refused")),
    }
}

/// The client must have heard exactly this.
fn heard(call: &Call, lines: &[&str]) -> Result<()> {
    ensure!(call.lines == lines, "heard {:?}, not {lines:?}", call.lines);
    Ok(())
}
