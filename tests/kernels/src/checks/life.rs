//! Agents come, take over from each other, die, give back; the pod's connections are captured or refused all the while.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use linux::{bpffs, netlink};
use redirect::attachment::ROUTE;
use redirect::pins::Pins;

use super::{Progress, connected, guard, heard, refused, steer};
use crate::agent::Agent;
use crate::call::{is_line, line};
use crate::world::{HTTP, World};
use crate::{BPFFS, LIMIT};

/// Pins of the node, whatever pods there are.
const NODE_PINS: [&str; 5] = ["connect4", "connect6", "ENROLLED", "EXEMPT", "AGENTS"];

pub(super) fn run(progress: &mut Progress, world: &World) -> Result<()> {
    progress.check("nothing is captured before", || {
        uncaptured(world)?;
        guard::is_open(world)
    })?;
    let first = loaded(progress, world)?;
    steer::all(progress, world, first.name)?;
    guard::all(progress, world)?;
    let second = adopted(progress, world, first)?;
    progress.check("a dead agent's pod is refused, in and out", || {
        second.kill()?;
        closed(world)
    })?;
    let third = started(progress, world, "third", "an agent takes over from a dead one")?;
    given_back(progress, world, third)?;
    let fourth = started(progress, world, "fourth", "a pod that was given back is captured again")?;
    progress.check("detaching the node ends capture without an agent", || {
        fourth.kill()?;
        closed(world)?;
        guard::is_shut(world)?;
        redirect::attachment::unguard(&pins(), world.pod.cookie()?, &world.pod)?;
        bpffs::remove(Path::new(BPFFS))?;
        netlink::remove_mark_route(&world.pod, ROUTE)?;
        soon_uncaptured(world)?;
        guard::is_gone(world)
    })
}

fn loaded(progress: &mut Progress, world: &World) -> Result<Agent> {
    let mut first = None;
    progress.check("the programs load, are attached and pinned", || {
        let mut agent = Agent::start("first", &world.pod)?;
        for pin in NODE_PINS {
            ensure!(pins().node().join(pin).exists(), "{pin} is not pinned");
        }
        ensure!(pod_pins(world)?.join("steer").exists(), "the pod's link is not pinned");
        agent.inspect()?;
        first = Some(agent);
        Ok(())
    })?;
    first.context("no agent")
}

/// A second agent takes over while the first still works, and none of the pod's connections notices.
fn adopted(progress: &mut Progress, world: &World, first: Agent) -> Result<Agent> {
    let mut second = None;
    progress.check("a second agent takes over from a living one, without a gap", || {
        let (calls, stop) = (Calls::default(), AtomicBool::new(false));
        std::thread::scope(|scope| {
            let caller = scope.spawn(|| keep_calling(world, &calls, &stop));
            let outcome = take_over(world, first, &calls);
            stop.store(true, Ordering::Relaxed);
            caller.join().unwrap_or_else(|_| bail!("the caller panicked"))?;
            second = Some(outcome?);
            anyhow::Ok(())
        })?;
        steer::both_ways(world, "second")
    })?;
    second.context("no second agent")
}

/// Connections that agents accepted.
#[derive(Default)]
struct Calls {
    first: AtomicUsize,
    second: AtomicUsize,
}

impl Calls {
    /// Waits until an agent has accepted `more` connections.
    fn wait(accepted: &AtomicUsize, more: usize) -> Result<()> {
        let (wanted, end) = (accepted.load(Ordering::Relaxed) + more, Instant::now() + LIMIT);
        while accepted.load(Ordering::Relaxed) < wanted {
            ensure!(Instant::now() < end, "the agent accepted nothing in {LIMIT:?}");
            std::thread::sleep(Duration::from_millis(1));
        }
        Ok(())
    }
}

fn take_over(world: &World, first: Agent, calls: &Calls) -> Result<Agent> {
    Calls::wait(&calls.first, 1)?;
    let second = Agent::start("second", &world.pod)?;
    // The first agent accepts until the kernel has let its program go, a little later. The caller makes one connection
    // at a time, so when the second has accepted one, the first has none in its hands.
    Calls::wait(&calls.second, 1)?;
    first.kill()?;
    // One may have been under way, so two.
    Calls::wait(&calls.second, 2)?;
    Ok(second)
}

/// Makes one connection after the other from the pod, and counts. Each must reach an agent.
fn keep_calling(world: &World, calls: &Calls, stop: &AtomicBool) -> Result<()> {
    while !stop.load(Ordering::Relaxed) {
        for &family in world.families {
            let call = connected(&world.pod, family.nobody())?;
            let [said] = call.lines.as_slice() else { bail!("heard {:?}", call.lines) };
            let accepted = if said.starts_with("outbound of second") { &calls.second } else { &calls.first };
            ensure!(said.starts_with("outbound of "), "heard {said}");
            accepted.fetch_add(1, Ordering::Relaxed);
        }
    }
    Ok(())
}

fn started(progress: &mut Progress, world: &World, name: &'static str, check: &str) -> Result<Agent> {
    let mut agent = None;
    progress.check(check, || {
        let mut started = Agent::start(name, &world.pod)?;
        started.inspect()?;
        steer::both_ways(world, name)?;
        guard::is_shut(world)?;
        agent = Some(started);
        Ok(())
    })?;
    agent.context("no agent")
}

fn given_back(progress: &mut Progress, world: &World, mut agent: Agent) -> Result<()> {
    progress.check("a pod that is given back goes straight, and nothing of it stays", || {
        agent.release()?;
        soon_uncaptured(world)?;
        ensure!(!pod_pins(world)?.exists(), "the pod's pins are still there");
        ensure!(!netlink::has_mark_rule(&world.pod, ROUTE)?, "the pod's rule is still there");
        guard::is_gone(world)?;
        ensure!(pins().node().join("connect4").exists(), "the node's programs went with the pod");
        agent.kill()
    })
}

/// The kernel detaches a link whose last pin was removed a little later, in a work queue (`bpf_link_put`).
fn soon_uncaptured(world: &World) -> Result<()> {
    let end = Instant::now() + LIMIT;
    loop {
        match uncaptured(world) {
            Err(_) if Instant::now() < end => std::thread::sleep(Duration::from_millis(1)),
            outcome => return outcome,
        }
    }
}

/// Connections go to the servers themselves, in and out.
fn uncaptured(world: &World) -> Result<()> {
    for &family in world.families {
        let call = connected(&world.pod, family.server())?;
        heard(&call, &[&line("server", family.server(), call.own)])?;
        let call = connected(&world.peer, family.pod(HTTP))?;
        let [said] = call.lines.as_slice() else { bail!("heard {:?}", call.lines) };
        ensure!(is_line(said, "app", family.pod(HTTP), call.own.ip()), "heard {said}");
    }
    Ok(())
}

/// Everything is refused, and nothing reaches a server.
fn closed(world: &World) -> Result<()> {
    let before = (world.app.served(), world.server.served());
    for &family in world.families {
        refused(&world.pod, family.nobody())?;
        refused(&world.pod, family.server())?;
        refused(&world.peer, family.pod(HTTP))?;
        refused(&world.peer, family.pod(15008))?;
    }
    let after = (world.app.served(), world.server.served());
    ensure!(before == after, "a connection reached a server: {before:?}, then {after:?}");
    Ok(())
}

fn pins() -> Pins {
    Pins::new(Path::new(BPFFS))
}

fn pod_pins(world: &World) -> Result<PathBuf> {
    Ok(pins().pod(world.pod.cookie()?))
}
