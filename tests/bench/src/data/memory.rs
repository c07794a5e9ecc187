//! What an agent weighs: with nothing to do, and for each captured connection that is idle.

use std::thread::sleep;
use std::time::Duration;

use anyhow::Result;
use serde::Serialize;

use super::world::{Way, World};

/// After this long without work an agent has given back what its start took.
const STARTED: Duration = Duration::from_secs(13);
/// After this long what is in use is what is needed.
const SETTLED: Duration = Duration::from_secs(1);
/// When what idle connections took should have been given back.
const GIVEN_BACK: Duration = Duration::from_secs(3);
/// Connections that make an agent touch for the first time what it touches for any connection.
const WARM: usize = 64;

/// Of both agents, the one on the client's node first.
#[derive(Clone, Debug, Default, Serialize)]
pub(super) struct Memory {
    /// MiB of an agent that nothing has passed yet but one connection.
    pub(super) idle: [f64; 2],
    /// KiB for a captured connection on which nothing moves.
    pub(super) connection: [f64; 2],
    /// How much of that was given back 3 s after the end of all, of 1.
    pub(super) given_back: [f64; 2],
}

/// MiB that are in use.
fn rss(world: &World) -> Result<[f64; 2]> {
    let [near, far] = world.agents();
    Ok([near.process().rss()?, far.process().rss()?])
}

/// Measures with so many connections; to be called before anything else has passed.
pub(super) fn measure(world: &World, connections: usize) -> Result<Memory> {
    sleep(STARTED);
    let idle = rss(world)?;
    hold(world, WARM, || Ok(()))?;
    sleep(GIVEN_BACK);
    let before = rss(world)?;
    let mut during = before;
    hold(world, connections, || {
        sleep(SETTLED);
        during = rss(world)?;
        Ok(())
    })?;
    sleep(GIVEN_BACK);
    let after = rss(world)?;
    let each = |side: fn([f64; 2]) -> f64| {
        let (before, during, after) = (side(before), side(during), side(after));
        let taken = (during - before).max(f64::MIN_POSITIVE);
        (taken * 1024.0 / connections as f64, ((during - after) / taken).clamp(0.0, 1.0))
    };
    let (near, far) = (each(|[near, _]| near), each(|[_, far]| far));
    Ok(Memory { idle, connection: [near.0, far.0], given_back: [near.1, far.1] })
}

fn hold(world: &World, connections: usize, meanwhile: impl FnOnce() -> Result<()>) -> Result<()> {
    let mut client = world.hold(Way::Meshed, connections)?;
    meanwhile()?;
    client.go()?;
    client.outcome().map(drop)
}
