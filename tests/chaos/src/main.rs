//! `chaos`: a storm, a soak, or an upgrade. `cargo xtask test chaos` builds and starts it.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "this program talks to people")]

use std::path::PathBuf;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::Result;
use clap::Parser;

/// Two nodes under load while everything around them fails.
#[derive(Parser)]
struct Args {
    /// How long it goes on.
    #[arg(long, default_value_t = 3)]
    minutes: u64,
    /// What the faults are made of; another each time if it is not given.
    #[arg(long)]
    seed: Option<u64>,
    /// Nothing fails; what the agents hold under 300 new connections a second must not grow.
    #[arg(long)]
    soak: bool,
    /// Nothing fails; both agents are replaced under 500 new connections a second, and nobody may notice.
    #[arg(long, conflicts_with_all = ["soak", "minutes"])]
    upgrade: bool,
    /// Another rate of new connections a second, for a soak or an upgrade.
    #[arg(long)]
    rate: Option<u64>,
    /// Copy the agents' logs of a storm or an upgrade to this directory.
    #[arg(long)]
    logs: Option<PathBuf>,
}

fn main() -> Result<()> {
    harness::run::teardown_on_signals()?;
    let Args { minutes, seed, soak, upgrade, rate, logs } = Args::parse();
    let seed = seed.unwrap_or_else(of_the_clock);
    let length = Duration::from_secs(minutes * 60);
    println!("  seed {seed}");
    if upgrade {
        chaos::upgrade::upgrade(seed, rate.unwrap_or(chaos::upgrade::RATE), logs.as_deref())?;
    } else if soak {
        chaos::soak::soak(seed, length, rate.unwrap_or(chaos::soak::RATE))?;
    } else {
        chaos::storm::rage(seed, length, logs.as_deref())?;
    }
    println!("chaos: passed, seed {seed}");
    Ok(())
}

fn of_the_clock() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::from(since.subsec_nanos()))
}
