//! `scenarios`: the walk-throughs that people learn ambient meshes from, each in a world of its own, told and checked.
//! `cargo xtask demo --scenario NAME` builds and starts it.
//!
//! A claim that does not hold is told with what was expected and what was seen, the walk-through goes on, and the program ends with other
//! than 0; so it does after a step that could not be done. Whatever happens, the world is taken down; a walk-through that takes longer than
//! [`limit`] allows is taken down and told by the step that it is in.

#![forbid(unsafe_code)]
#![expect(clippy::print_stdout, reason = "this program talks to people")]

mod authorization;
mod bookinfo;
mod books;
mod calls;
mod delay;
mod follower;
mod ingress;
mod limit;
mod look;
mod moving;
mod split;
mod stage;
mod waypoint;

use std::process::ExitCode;
use std::time::Instant;

use anyhow::{Result, ensure};
use clap::Parser;
use harness::{Narrator, Scenario, run};

/// Plays walk-throughs.
#[derive(Parser)]
struct Args {
    /// Which, in this order.
    #[arg(required = true)]
    scenarios: Vec<Scenario>,
    /// Tell only what was not as said.
    #[arg(long)]
    terse: bool,
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run::teardown_on_signals().and_then(|()| play_all(&args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            println!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn play_all(args: &Args) -> Result<()> {
    let began = Instant::now();
    let mut failed = Vec::new();
    for scenario in &args.scenarios {
        if !play(*scenario, args.terse) {
            failed.push(scenario.name());
        }
    }
    let (all, took) = (args.scenarios.len(), began.elapsed().as_secs_f64());
    println!("\n{} of {all} walk-throughs went as told, in {took:.1} s.", all - failed.len());
    ensure!(failed.is_empty(), "not as told: {}", failed.join(", "));
    Ok(())
}

/// Plays one from beginning to end; false if it did not go as told.
fn play(scenario: Scenario, is_terse: bool) -> bool {
    println!("\n== {}: {}", scenario.name(), scenario.title());
    let mut say = if is_terse { Narrator::terse() } else { Narrator::new() };
    let (began, limit) = (Instant::now(), limit::Limit::of(scenario));
    let outcome = match scenario {
        Scenario::Bookinfo => bookinfo::play(&mut say),
        Scenario::Split => split::play(&mut say),
        Scenario::Delay => delay::play(&mut say),
        Scenario::Authorization => authorization::play(&mut say),
        Scenario::Ingress => ingress::play(&mut say),
        Scenario::Move => moving::play(&mut say),
    };
    drop(limit);
    if let Err(error) = &outcome {
        say.broken(&format!("{error:#}"));
    }
    say.step("It is taken down");
    say.equal("nothing of it is left", &run::standing(), &Vec::new());
    say.summary(began.elapsed());
    outcome.is_ok() && say.failures() == 0
}
