//! `capture`: what capture costs a connection, a pod and a node, beside no capture and beside iptables.

mod apart;
mod floor;
mod iptables;
mod lane;
mod memory;
mod paths;
mod pods;
mod report;
mod site;
mod switch;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use harness::Run;

use self::lane::Lanes;
use self::paths::{Effort, Quantity};
use self::site::Site;
use self::switch::Switch;
use crate::cpu;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Fail if a ratio is below the committed floor.
    #[arg(long)]
    check: bool,
    /// Fewer rounds and pods: less than a minute.
    #[arg(long)]
    short: bool,
}

/// How much is measured.
struct Plan {
    rate: Effort,
    bulk: Effort,
    scale: Effort,
    pods: &'static [usize],
}

const fn effort(rounds: usize, millis: u64) -> Effort {
    Effort { rounds, slice: Duration::from_millis(millis) }
}

const FULL: Plan =
    Plan { rate: effort(60, 80), bulk: effort(40, 80), scale: effort(12, 200), pods: &[1, 50, 250] };
const SHORT: Plan =
    Plan { rate: effort(14, 60), bulk: effort(12, 60), scale: effort(6, 100), pods: &[1, 50] };

pub(crate) fn run(args: &Args) -> Result<()> {
    let plan = if args.short { SHORT } else { FULL };
    harness::run::teardown_on_signals()?;
    let cpu = cpu::claim()?;
    let run = Run::start()?;
    let mut switch = Switch::new(&run.bpffs())?;

    let [none, captured, tracked] =
        [Site::new(&run, "none", 1)?, Site::new(&run, "culvert", 2)?, Site::new(&run, "iptables", 3)?];
    let version = iptables::lay(&tracked)?;
    let mut lanes = Lanes::default();
    lanes.add_none(&none)?;
    let attachment = Arc::new(lanes.add_culvert(&captured, switch.node()?)?);
    switch.set_pod(Some(Arc::clone(&attachment)));
    lanes.add_iptables(&tracked)?;

    report::machine(cpu, &version);
    let rate = paths::measure(&lanes, &mut switch, Quantity::Rate, plan.rate)?;
    report::paths(Quantity::Rate, &rate);
    let bulk = paths::measure(&lanes, &mut switch, Quantity::Bulk, plan.bulk)?;
    report::paths(Quantity::Bulk, &bulk);

    switch.set_pod(None);
    let node = switch.node()?;
    attachment.release(node)?;
    drop((lanes, attachment));
    let pods = pods::measure(&run, node, plan.pods, plan.scale)?;
    report::pods(&pods);

    if args.check {
        floor::check(&report::ratios(&rate, &bulk, &pods))?;
        println!("\nEvery ratio is at or above its floor.");
    }
    Ok(())
}
