//! `chaos`: a storm, or a soak. `cargo xtask test chaos` builds and starts it.

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
    /// Copy the agents' logs of a storm to this directory.
    #[arg(long)]
    logs: Option<PathBuf>,
}

fn main() -> Result<()> {
    harness::run::teardown_on_signals()?;
    let Args { minutes, seed, soak, logs } = Args::parse();
    let seed = seed.unwrap_or_else(of_the_clock);
    let length = Duration::from_secs(minutes * 60);
    println!("  seed {seed}, {minutes} min");
    if soak {
        chaos::soak::soak(seed, length)?;
    } else {
        chaos::storm::rage(seed, length, logs.as_deref())?;
    }
    println!("chaos: passed, seed {seed}");
    Ok(())
}

fn of_the_clock() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::from(since.subsec_nanos()))
}
