//! An upgrade under load: on each node another agent takes over, and nobody notices.
//!
//! No attempt to connect fails meanwhile, and no connection that is kept is lost: the old agents serve them to their end, and
//! end with the last of them.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use harness::wait::eventually_ok;
use harness::{Agent, eventually};

use crate::load::{Counts, Load, Size};
use crate::storm::{denied, goes_on, until_it_sees, ways};
use crate::watch::Watch;
use crate::world::{LIMIT, World};

/// New connections a second, on both ways together.
pub const RATE: u64 = 500;
/// Connections that are kept, on each way.
const KEPT: usize = 100;
/// Connections of the load before, between and after the upgrades, in seconds' worth.
const SECONDS: u64 = 3;
/// Parts of a thousand of the rate that must have been reached.
const REACHED: u64 = 950;
/// What a new agent says when it is alone.
const TAKEN: &str = "handed over; this agent serves";

/// Upgrades both agents under a load of that rate. Their logs are copied to a directory if one is given, however it ends.
pub fn upgrade(seed: u64, rate: u64, logs: Option<&Path>) -> Result<()> {
    let mut world = World::new(seed, false)?;
    let outcome = replace_both(&mut world, rate);
    logs.map_or(Ok(()), |to| world.save_logs(to))?;
    outcome
}

fn replace_both(world: &mut World, rate: u64) -> Result<()> {
    let watch = Watch::start(world.wire.netns())?;
    until_it_sees(world, &watch)?;
    let size = Size { rate: rate / 2, workers: 16, kept: KEPT };
    let load = Load::start(&ways(world), &denied(world), size)?;
    let counts = &load.counts;
    // All that are kept have been made.
    eventually("every connection that is kept to be used", LIMIT, || {
        (Counts::now(&counts.exchanged) >= 4 * KEPT as u64).then_some(())
    })?;
    goes_on(counts, rate * SECONDS)?;
    let noticed =
        |counts: &Counts| [&counts.refused, &counts.lost, &counts.failed, &counts.renewed].map(Counts::now);
    let before = noticed(counts);
    let (served, began) = (Counts::now(&counts.served), Instant::now());
    let mut old = Vec::new();
    for place in &mut world.places {
        old.push(place.agent.succeed()?);
        let took = Instant::now();
        eventually("the new agent to take over", LIMIT, || place.agent.log_lines(&[TAKEN]).pop())?;
        place.agent.wait_ready()?;
        println!("  {}: another agent serves after {:?}", place.node.name(), took.elapsed());
        goes_on(counts, rate * SECONDS)?;
    }
    let served = Counts::now(&counts.served) - served;
    let per_second = served * 1000 / u64::try_from(began.elapsed().as_millis())?.max(1);
    let [refused, lost, failed, renewed] = since(noticed(counts), before);
    let late = failed + renewed - refused - lost;
    println!(
        "  {served} connections during two upgrades, {per_second} a second; {refused} refused, {lost} of those kept lost, \
         {late} late"
    );
    ensure!(refused == 0 && lost == 0, "an upgrade was noticed");
    let fast = late == 0 && per_second >= rate * REACHED / 1000;
    ensure!(fast, "this machine does not bear {rate} connections a second; --rate sets another");
    for agent in &mut old {
        ensure!(agent.is_running(), "an old agent lives as long as its connections");
    }
    load.end()?.check()?;
    old.iter_mut().try_for_each(ends)?;
    world.agents_live()?;
    watch.finish()
}

/// What was counted since.
fn since(now: [u64; 4], before: [u64; 4]) -> [u64; 4] {
    let mut counts = now.into_iter().zip(before).map(|(now, before)| now - before);
    [0; 4].map(|none| counts.next().unwrap_or(none))
}

/// With the last connection it is over.
fn ends(agent: &mut Agent) -> Result<()> {
    let ended = eventually_ok("an old agent to end with its last connection", LIMIT, || {
        agent.exited()?.context("it runs still")
    })?;
    ensure!(ended.success(), "an old agent ended with {ended}");
    Ok(())
}
