//! `demo`: the product on two nodes made of network namespaces, told step by step.
//!
//! Every claim is checked where it is made, on real sockets and on the frames between the nodes. A claim that does not
//! hold is shown and the story goes on; a step that cannot be done ends it. In every case all is taken down, unless
//! `--keep` was asked for and nothing broke. With `--scenario` it is another story, or all of them.

mod keep;
mod scenarios;
mod steps;
mod world;

use std::time::Instant;

use anyhow::{Result, bail};
use harness::Narrator;

use crate::binaries::Binaries;
use crate::built::Built;
use crate::setup;
use scenarios::Wanted;
use world::World;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Leave it standing at the end and print commands to try.
    #[arg(long)]
    keep: bool,
    /// End with an error if anything was not as said. What runs is what the tests run, not what is shipped.
    #[arg(long)]
    check: bool,
    /// Take down what --keep left.
    #[arg(long, conflicts_with_all = ["keep", "check"])]
    down: bool,
    /// Play a walk-through instead, or `all`.
    #[arg(long, value_name = "NAME", value_parser = scenarios::wanted, conflicts_with_all = ["keep", "down"])]
    scenario: Option<Wanted>,
    /// Show which walk-throughs there are.
    #[arg(long, conflicts_with_all = ["keep", "check", "down", "scenario"])]
    list: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    if args.list {
        scenarios::list();
        return Ok(());
    }
    setup::require_root()?;
    if let Some(wanted) = &args.scenario {
        return scenarios::play(wanted, args.check);
    }
    if args.down {
        keep::take_down();
        return Ok(());
    }
    setup::ensure(&setup::RUNTIME)?;
    let binaries = if args.check { Binaries::of(&Built::all()?)? } else { Binaries::release()? };
    harness::run::teardown_on_signals()?;
    let started = Instant::now();
    let mut say = Narrator::new();
    let mut world = World::build(&mut say, &binaries)?;
    let told = steps::tell(&mut say, &mut world);
    let broken = told.as_ref().err().map(|error| format!("{error:#}"));
    if let Some(error) = &broken {
        say.broken(error);
        world.show_logs();
    }
    if args.keep && broken.is_none() {
        keep::leave(world, &binaries.pod_app)?;
    } else {
        steps::take_down(&mut say, world);
    }
    say.summary(started.elapsed());
    match broken {
        Some(error) => bail!("the demo could not be finished: {error}"),
        None if args.check && say.failures() > 0 => bail!("{} claims did not hold", say.failures()),
        None => Ok(()),
    }
}
