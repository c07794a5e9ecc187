//! `control`: what the mesh costs, in memory, in time at the start, and in the latency of traffic while it changes.
//!
//! Stores are measured in processes of their own; the agent is the real one, with capture, a pod's traffic and a control
//! plane in another process. The agent has one CPU to itself and what is around it has the others, so that "on one core"
//! is what it says. Each figure stands beside its target; a target that is missed is said, and with `--check` is a failure.

mod agent;
mod load;
mod plane;
mod startup;
mod store;

use anyhow::{Result, ensure};
use harness::Run;

use self::agent::Cpus;
use self::plane::Size;
use crate::figures::{self, Figures};

pub(crate) use self::store::{StoreArgs, run_store};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Fail if a target is missed.
    #[arg(long)]
    check: bool,
    /// Fewer rounds: about a minute.
    #[arg(long)]
    short: bool,
}

/// The mesh of the large figures, and that of the small ones.
const LARGE: Size = Size { workloads: 100_000, services: 10_000 };
const SMALL: Size = Size { workloads: 10_000, services: 1_000 };

pub(crate) fn run(args: &Args) -> Result<()> {
    harness::run::teardown_on_signals()?;
    let mut figures = Figures::default();
    figures::machine();
    let cpus = Cpus::divide()?;
    store::measure(LARGE, &mut figures)?;
    let (rounds, resends) = if args.short { (3, 2) } else { (11, 5) };
    // A run has one wire.
    startup::measure(&Run::start()?, &cpus, SMALL, rounds, &mut figures)?;
    plane::measure(&Run::start()?, &cpus, LARGE, resends, &mut figures)?;
    let missed = figures.missed();
    ensure!(!args.check || missed.is_empty(), "targets that are missed:\n  {}", missed.join("\n  "));
    Ok(())
}
