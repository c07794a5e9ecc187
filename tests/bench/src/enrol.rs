//! `enrol`: what it costs a pod to be enrolled, as its runtime sees it: from the start of the plugin to its answer.
//!
//! The plugin and the agent are the real ones; the process of the plugin is started as a runtime does, and what its start alone
//! costs, which answers VERSION, is measured between all else and subtracted where a target says "over its start". The bridge
//! plugin beside it is what a pod costs without a mesh. All calls of a round follow one another, so that what else the machine
//! does falls on all.

mod call;
mod kubernetes;
mod pods;

use anyhow::{Result, ensure};
use harness::{Agent, MeshFile, Run, Wire};

use self::pods::Pods;
use crate::figures::{self, Figures};
use crate::stats::percentiles;

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Fail if a target is missed.
    #[arg(long)]
    check: bool,
    /// Fewer pods: about ten seconds.
    #[arg(long)]
    short: bool,
}

/// Milliseconds of ADD of a captured pod over the plugin's start, for half of them.
const ADD: f64 = 15.0;

pub(crate) fn run(args: &Args) -> Result<()> {
    harness::run::teardown_on_signals()?;
    figures::machine();
    let mut figures = Figures::default();
    let (run, count) = (Run::start()?, if args.short { 30 } else { 150 });
    let wire = Wire::new(&run)?;
    let node = wire.add_node("n1")?;
    let mut mesh = MeshFile::with_ca(&run.dir().join("ca"));
    mesh.enroll = pods::entries(&node, count);
    let path = run.dir().join("n1.yaml");
    mesh.write_for(&node, &path)?;
    let agent = Agent::start(&node, &path)?;
    let pods = Pods::measure(&node, count)?;
    drop(agent);
    report(&pods, &mut figures);
    kubernetes::measure(count, &mut figures)?;
    let missed = figures.missed();
    ensure!(!args.check || missed.is_empty(), "targets that are missed:\n  {}", missed.join("\n  "));
    Ok(())
}

fn report(pods: &Pods, figures: &mut Figures) {
    let (start, _) = percentiles(&pods.start);
    for (what, times) in [
        ("the plugin's bare start (VERSION)", &pods.start),
        ("the bridge plugin, for comparison: ADD", &pods.bridge),
        ("ADD of a pod in the mesh", &pods.captured),
        ("ADD of a pod that is not", &pods.others),
        ("ADD of a pod in an excluded namespace", &pods.excluded),
        ("CHECK of a pod in the mesh", &pods.check),
        ("DEL of a pod in the mesh", &pods.del),
    ] {
        let (half, most) = percentiles(times);
        figures.note(&format!("{what}: p50"), half, "ms");
        figures.note(&format!("{what}: p99"), most, "ms");
    }
    let (captured, _) = percentiles(&pods.captured);
    let (others, _) = percentiles(&pods.others);
    figures.at_most("ADD of a pod in the mesh, over the start: p50", captured - start, ADD, "ms");
    figures.at_most("ADD of a pod that is not, over the start: p50", others - start, ADD, "ms");
}
