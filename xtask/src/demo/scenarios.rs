//! `demo --scenario`: the walk-throughs, which a program of their own plays (`tests/scenarios`), for it has Envoy's configurations and a
//! cluster's API to bring along.

use std::process::Command;

use anyhow::{Result, bail};
use clap::ValueEnum as _;
use harness::Scenario;

use crate::binaries::{self, Binaries};
use crate::built::Built;
use crate::{envoy, setup, shell};

/// What stands for all of them.
const ALL: &str = "all";
const PROGRAM: &str = "scenarios";

/// Which of them are asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Wanted(Vec<Scenario>);

/// Reads a name, or the word for all.
pub(super) fn wanted(text: &str) -> Result<Wanted> {
    if text == ALL {
        return Ok(Wanted(Scenario::ALL.to_vec()));
    }
    match Scenario::from_str(text, false) {
        Ok(scenario) => Ok(Wanted(vec![scenario])),
        Err(_) => bail!("there is no such walk-through; --list shows them, {ALL} plays them all"),
    }
}

/// Shows what there is.
pub(super) fn list() {
    for scenario in Scenario::ALL {
        println!("{:14} {}", scenario.name(), scenario.title());
    }
}

/// Builds and plays. A check runs what the tests run, and tells little.
pub(super) fn play(Wanted(wanted): &Wanted, is_check: bool) -> Result<()> {
    setup::ensure(&setup::RUNTIME)?;
    let (binaries, program) = if is_check {
        let built = Built::all()?;
        (Binaries::of(&built)?, built.program(PROGRAM)?)
    } else {
        let binaries = Binaries::release()?;
        let own = ["-p", "culvert-scenarios", "--bin", PROGRAM];
        (binaries, binaries::build("release", &own, |_| Ok(()))?.join(PROGRAM))
    };
    let mut play = Command::new(program);
    play.args(wanted.iter().map(|scenario| scenario.name())).envs(binaries.environment());
    play.args(is_check.then_some("--terse"));
    if wanted.iter().any(|scenario| scenario.has_envoy()) {
        play.env("ENVOY_BIN", envoy::ensure()?);
    }
    shell::run(&mut play)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_or_all_are_wanted_and_what_is_not_there_is_told() {
        for scenario in Scenario::ALL {
            assert_eq!(wanted(scenario.name()).unwrap(), Wanted(vec![scenario]));
        }
        assert_eq!(wanted("all").unwrap(), Wanted(Scenario::ALL.to_vec()));
        assert!(wanted("bokinfo").unwrap_err().to_string().contains("--list"));
    }
}
