//! `test chaos`: two nodes under load while agents die, links flap and disks fill up.
//!
//! First what spoils packets is itself tested, then the storm is let loose. With `--soak` nothing fails for as long as is said, and
//! what the agents hold must not grow; with `--upgrade` both agents are replaced under load, and nobody may notice.

use std::process::Command;

use anyhow::{Result, bail};

use crate::binaries::Binaries;
use crate::built::Built;
use crate::{setup, shell};

/// Where the storm and its tests are.
pub(super) const CHAOS: [&str; 1] = ["tests/chaos"];

#[derive(clap::Args)]
pub(super) struct Weather {
    /// How long the storm or the soak goes on; chaos alone.
    #[arg(long)]
    minutes: Option<u64>,
    /// The seed of a storm that is to be had again; chaos alone.
    #[arg(long)]
    seed: Option<u64>,
    /// Nothing fails, and what the agents hold under load must not grow; chaos alone.
    #[arg(long)]
    soak: bool,
    /// Both agents are replaced under load, and nobody may notice; chaos alone.
    #[arg(long)]
    upgrade: bool,
    /// Another rate of new connections a second for a soak or an upgrade; chaos alone.
    #[arg(long)]
    rate: Option<u64>,
}

impl Weather {
    /// An error if one was given to other suites.
    pub(super) fn only_for_chaos(&self, is_it: bool) -> Result<()> {
        let any =
            [self.minutes, self.seed, self.rate].iter().any(Option::is_some) || self.soak || self.upgrade;
        if any && !is_it {
            bail!(
                "--minutes, --seed, --soak, --upgrade and --rate are of chaos: cargo xtask test chaos --minutes 20"
            );
        }
        Ok(())
    }
}

/// With a filter, only the tests of what the storm is made of.
pub(super) fn run(weather: &Weather, filter: Option<&str>) -> Result<()> {
    println!("\n== chaos: two nodes while everything around them fails");
    setup::require_root()?;
    setup::ensure(&setup::RUNTIME)?;
    let built = Built::all()?;
    let binaries = Binaries::of(&built)?;
    built.run_those_of(&CHAOS, filter, &binaries.environment())?;
    if filter.is_some() {
        return Ok(());
    }
    let mut storm = Command::new(built.program("chaos")?);
    let with_value = [("--minutes", weather.minutes), ("--seed", weather.seed), ("--rate", weather.rate)];
    for (name, value) in with_value {
        storm.args(value.iter().flat_map(|value| [name.to_owned(), value.to_string()]));
    }
    storm.args(weather.soak.then_some("--soak"));
    storm.args(weather.upgrade.then_some("--upgrade"));
    shell::run(storm.envs(binaries.environment()))
}
