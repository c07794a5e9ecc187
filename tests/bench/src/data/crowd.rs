//! Many at once: connections that are there and do nothing, and a pod that opens more than its neighbours do.
//!
//! What the neighbour notices is measured without a mesh, too: on a machine with two CPUs a flood takes time from everybody, whoever
//! carries it. Invariant: rounds alternate, so that what else the machine does falls on all.

use std::thread::sleep;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};

use super::cgroup;
use super::proxy::Program;
use super::slice::Order;
use super::world::{Size, Way, World};
use crate::figures::{self, Figures};
use crate::stats::Spread;

/// Connections that are idle, through one pair of agents, each of which has a descriptor for each.
const IDLE: u64 = 20_000;
/// Pods that have them.
const PAIRS: usize = 4;
/// Connections a second of the neighbour.
const NEIGHBOUR: f64 = 200.0;
/// Those of the pod that opens many, and what is demanded beside them. The second is more than two CPUs can serve in a mesh.
const FLOODS: [(f64, Option<f64>); 2] = [(1_000.0, None), (5_000.0, Some(LOSS))];
/// Rounds, and of a short run.
const ROUNDS: [usize; 2] = [5, 1];
/// Idle connections of a short run.
const FEW: u64 = 2_000;
/// Seconds of each round.
const LENGTH: f64 = 3.0;
/// Milliseconds that the neighbour's slowest connections may lose.
const LOSS: f64 = 2.0;
/// How long what is closed may take to be gone.
const GONE: Duration = Duration::from_secs(10);

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Fail if a target is missed.
    #[arg(long)]
    check: bool,
    /// One round, and a tenth of the idle connections.
    #[arg(long)]
    short: bool,
}

/// Measures all of it.
pub(crate) fn run(args: &Args) -> Result<()> {
    harness::run::teardown_on_signals()?;
    cgroup::sweep()?;
    figures::machine();
    let mut figures = Figures::default();
    measure(&Program::own()?, args.short, &mut figures)?;
    let missed = figures.missed();
    ensure!(!args.check || missed.is_empty(), "targets that are missed:\n  {}", missed.join("\n  "));
    Ok(())
}

fn measure(program: &Program, short: bool, figures: &mut Figures) -> Result<()> {
    let [full, one] = ROUNDS;
    let (wanted, rounds) = if short { (FEW, one) } else { (IDLE, full) };
    let world = World::new(program, Size { pairs: PAIRS, cold: 0, workers: None })?;
    idle(&world, wanted, figures)?;
    for (flood, target) in FLOODS {
        neighbour(&world, (flood, rounds), target, figures)?;
    }
    Ok(())
}

fn descriptors(world: &World) -> Result<[f64; 2]> {
    let [near, far] = world.agents();
    Ok([near.process().descriptors()? as f64, far.process().descriptors()? as f64])
}

fn rss(world: &World) -> Result<[f64; 2]> {
    let [near, far] = world.agents();
    Ok([near.process().rss()?, far.process().rss()?])
}

/// As many as are wanted, or, where nobody may have so many descriptors, as there are but for a twentieth.
fn how_many(wanted: u64) -> Result<usize> {
    let limit = linux::limits::raise_descriptors()?;
    let most = limit - limit / 20;
    if most < wanted {
        println!(
            "  no process may hold more than {limit} descriptors here: {most} connections are had in place of {wanted}"
        );
    }
    Ok(usize::try_from(wanted.min(most))?)
}

fn idle(world: &World, wanted: u64, figures: &mut Figures) -> Result<()> {
    let count = how_many(wanted)?;
    let (before, open_before, began) = (rss(world)?, descriptors(world)?, Instant::now());
    let mut clients = world.hold_all(count)?;
    let took = began.elapsed();
    let (during, open) = (rss(world)?, descriptors(world)?);
    let asked = Order { pairs: Some(1), count: Some(100), ..Order::ask(1) };
    // Others are served meanwhile, and each of those that were idle ends well.
    world.slice(Way::Meshed, &asked)?;
    for client in &mut clients {
        client.go()?;
    }
    for client in clients {
        client.outcome()?;
    }
    let gone = Instant::now();
    while descriptors(world)?.iter().zip(open_before).any(|(now, before)| *now > before + 64.0) {
        ensure!(gone.elapsed() < GONE, "the agents hold {:?} descriptors still", descriptors(world)?);
        sleep(Duration::from_millis(50));
    }
    figures.note("idle connections through one pair of agents", count as f64, "");
    figures.note("the time in which they were opened", took.as_secs_f64(), "s");
    for (side, name) in ["the client's", "the server's"].into_iter().enumerate() {
        let at = |of: [f64; 2]| of.get(side).copied().unwrap_or_default();
        figures.note(&format!("{name} agent meanwhile: memory"), at(during), "MiB");
        figures.note(
            &format!("{name} agent: for each"),
            (at(during) - at(before)) * 1024.0 / count as f64,
            "KiB",
        );
        figures.note(&format!("{name} agent: descriptors"), at(open), "");
    }
    Ok(())
}

/// What a neighbour's slowest connections lose beside a pod that opens so many a second.
fn neighbour(
    world: &World,
    (flood, rounds): (f64, usize),
    target: Option<f64>,
    figures: &mut Figures,
) -> Result<()> {
    let own = Order { rate: Some(NEIGHBOUR), seconds: LENGTH, pairs: Some(1), ..Order::connect(1) };
    let flood = Order { rate: Some(flood), ..own };
    let mut sides = [Side::default(), Side::default()];
    for _ in 0..rounds {
        for (side, way) in sides.iter_mut().zip([Way::Direct, Way::Meshed]) {
            let quiet = world.slice(way, &own)?.outcome;
            let [beside, flooding] = world.beside(way, &own, &flood)?;
            side.alone.push(quiet.p99 / 1e3);
            side.rise.push((beside.p99 - quiet.p99) / 1e3);
            side.rate.push(flooding.count as f64 / flooding.seconds.max(f64::MIN_POSITIVE));
        }
    }
    println!();
    for (side, name, target) in
        sides.into_iter().zip(["directly", "in the mesh"]).zip([None, target]).map(flat)
    {
        let median = |samples| Spread::of(samples).median;
        figures.note(
            &format!("a pod opens {} a second {name}: it gets", flood.rate.unwrap_or_default()),
            median(side.rate),
            "/s",
        );
        figures.note("its neighbour's p99, alone", median(side.alone), "ms");
        let (what, rise) = ("what that loses beside it", median(side.rise));
        match target {
            Some(target) => figures.at_most(what, rise, target, "ms"),
            None => figures.note(what, rise, "ms"),
        }
    }
    Ok(())
}

/// What was measured of one way, a value for each round.
#[derive(Default)]
struct Side {
    /// Milliseconds.
    alone: Vec<f64>,
    rise: Vec<f64>,
    /// Connections a second of the flood.
    rate: Vec<f64>,
}

fn flat<A, B, C>(((a, b), c): ((A, B), C)) -> (A, B, C) {
    (a, b, c)
}
