//! `enrol`: what it costs a pod to be enrolled, as its runtime sees it: from the start of the plugin to its answer.
//!
//! The plugin and the agent are the real ones; the process of the plugin is started as a runtime does, and what its start alone
//! costs, which answers VERSION, is measured between all else and subtracted where a target says "over its start". The bridge
//! plugin beside it is what a pod costs without a mesh. All calls of a round follow one another, so that what else the machine
//! does falls on all.

mod burst;
mod call;
mod crash;
mod footprint;
mod kubernetes;
mod outage;
mod pods;

use std::time::Duration;

use anyhow::{Result, ensure};
use harness::{Agent, MeshFile, Run, Wire};

use self::burst::{AT_ONCE, Burst};
use self::outage::Outage;
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
const OVER_START: f64 = 15.0;
/// Milliseconds of the whole process, for half of them: ADD of a captured pod, and ADD of one outside and DEL.
const ADD: f64 = 8.0;
const SHORT: f64 = 4.0;
/// Milliseconds after which a pod of which nobody can tell has been refused.
const REFUSAL: f64 = 2000.0;

pub(crate) fn run(args: &Args) -> Result<()> {
    harness::run::teardown_on_signals()?;
    figures::machine();
    let mut figures = Figures::default();
    let (run, count) = (Run::start()?, if args.short { 30 } else { 150 });
    let wire = Wire::new(&run)?;
    let node = wire.add_node("n1")?;
    let mut mesh = MeshFile::with_ca(&run.dir().join("ca"));
    mesh.enroll = [pods::entries(&node, count), burst::entries(&node)].concat();
    let path = run.dir().join("n1.yaml");
    mesh.write_for(&node, &path)?;
    let agent = Agent::start(&node, &path)?;
    let pods = Pods::measure(&node, count)?;
    report(&pods, &mut figures);
    report_burst(&Burst::measure(&node)?, &mut figures);
    drop(agent);
    report_outage(&Outage::measure()?, &mut figures);
    crash::measure(if args.short { 3 } else { 15 }, &mut figures)?;
    kubernetes::measure(count, &mut figures)?;
    let missed = figures.missed();
    ensure!(!args.check || missed.is_empty(), "targets that are missed:\n  {}", missed.join("\n  "));
    Ok(())
}

fn report(pods: &Pods, figures: &mut Figures) {
    let (start, _) = percentiles(&pods.start);
    for (what, times, target) in [
        ("the plugin's bare start (VERSION)", &pods.start, None),
        ("the bridge plugin, for comparison: ADD", &pods.bridge, None),
        ("ADD of a pod in the mesh", &pods.captured, Some(ADD)),
        ("ADD of a pod that is not", &pods.others, Some(SHORT)),
        ("ADD of a pod in an excluded namespace", &pods.excluded, Some(SHORT)),
        ("CHECK of a pod in the mesh", &pods.check, None),
        ("DEL of a pod in the mesh", &pods.del, Some(SHORT)),
    ] {
        half_and_most(what, times, target, figures);
    }
    let (captured, _) = percentiles(&pods.captured);
    let (others, _) = percentiles(&pods.others);
    figures.at_most("ADD of a pod in the mesh, over the start: p50", captured - start, OVER_START, "ms");
    figures.at_most("ADD of a pod that is not, over the start: p50", others - start, OVER_START, "ms");
}

fn report_burst(burst: &Burst, figures: &mut Figures) {
    half_and_most(&format!("ADD of each of {AT_ONCE} pods at once"), &burst.calls, None, figures);
    figures.note(
        &format!("{AT_ONCE} pods at once, until all are answered"),
        burst.all.as_secs_f64() * 1e3,
        "ms",
    );
}

fn report_outage(outage: &Outage, figures: &mut Figures) {
    let Outage { before, meanwhile, .. } = outage;
    half_and_most("Kubernetes: ADD of a pod in the mesh", &before.inside, Some(ADD), figures);
    half_and_most("its API gone: ADD of a known pod in the mesh", &meanwhile.inside, Some(ADD), figures);
    half_and_most("Kubernetes: ADD of a pod that is not", &before.outside, Some(SHORT), figures);
    half_and_most("its API gone: ADD of a known pod that is not", &meanwhile.outside, Some(SHORT), figures);
    let (_, most) = percentiles(&outage.unknown);
    figures.at_most("its API gone: refusal of an unknown pod: p99", most, REFUSAL, "ms");
    println!("  it is told: {}", outage.told.trim());
}

/// Prints p50, which may have a target, and p99.
fn half_and_most(what: &str, times: &[Duration], target: Option<f64>, figures: &mut Figures) {
    let (half, most) = percentiles(times);
    match target {
        Some(target) => figures.at_most(&format!("{what}: p50"), half, target, "ms"),
        None => figures.note(&format!("{what}: p50"), half, "ms"),
    }
    figures.note(&format!("{what}: p99"), most, "ms");
}
