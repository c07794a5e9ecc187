//! `data`: what the data path costs: two nodes on a wire, real capture, two real agents, beside the same without a mesh.
//!
//! Direct and meshed are measured in turn, so that what else the machine does falls on both. On one CPU nothing of the work
//! hides on another one; on all of them the figures are what a node gives. CPU time is the kernel's account of each agent and
//! of the load, each a group of its own. Access logs and metrics are on, as they are shipped.

mod case;
mod cgroup;
pub(crate) mod crowd;
mod curves;
mod floor;
mod growth;
mod load;
mod memory;
mod plot;
mod proxy;
mod report;
mod slice;
mod world;

use std::path::PathBuf;

use anyhow::{Context as _, Result};
use harness::command;
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

use self::case::{CASES, Case, Round};
use self::proxy::Program;
use self::report::{Measured, Report};
use self::slice::{Order, Slice};
use self::world::{Size, Way, World};
use crate::{cpu, figures};

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Fail if a ratio to the direct way is more than a tenth below the committed one.
    #[arg(long)]
    check: bool,
    /// Three short rounds on one CPU, held against floors of their own: less than three minutes.
    #[arg(long)]
    short: bool,
    /// Measure how costs grow with connections, pods, sizes of messages and workers, in place of the table.
    #[arg(long)]
    growth: bool,
    /// Another agent to measure beside ours: a program and its first words. It is started as ours is.
    #[arg(long, value_name = "CMD")]
    agent: Vec<String>,
    /// Where to leave data.json and pictures.
    #[arg(long, default_value = "target/bench")]
    out: PathBuf,
}

/// How much is measured.
#[derive(Clone, Copy)]
struct Plan {
    rounds: usize,
    seconds: f64,
    /// Idle connections of which the memory is taken.
    held: usize,
    /// How long connections are opened at a steady rate.
    steady: f64,
}

const FULL: Plan = Plan { rounds: 5, seconds: 3.0, held: 2_000, steady: 20.0 };
const SHORT: Plan = Plan { rounds: 3, seconds: 0.8, held: 1_000, steady: 6.0 };
/// Connections a second of the steady ones.
const STEADY: f64 = 500.0;
/// Ports of the steady ones: each comes again within about two seconds, while its last use is remembered for a minute.
const NARROW: &str = "32768 33791";
const WIDE: &str = "32768 60999";

pub(crate) fn run(args: &Args) -> Result<()> {
    harness::run::teardown_on_signals()?;
    cgroup::sweep()?;
    figures::machine();
    let all = sched_getaffinity(Pid::from_raw(0)).context("asking for the CPUs")?;
    let mut programs = vec![Program::own()?];
    for text in &args.agent {
        programs.push(Program::named(text)?);
    }
    let mut report = Report { kernel: kernel(), ..Report::default() };
    let plan = if args.short { SHORT } else { FULL };
    if args.growth {
        grow(&programs, plan.seconds, &mut report)?;
    } else {
        for program in &programs {
            on_one_cpu(program, plan, &mut report, &all)?;
            if !args.short {
                println!("\n{} on all CPUs", program.name);
                report.measured.push(measure(program, "all CPUs", plan)?);
            }
        }
    }
    report.measured.iter().for_each(Measured::print);
    leave(args, &report)?;
    if args.check
        && let Some(own) = report.measured.first()
    {
        floor::check(own, args.short)?;
        println!("\nNo ratio has lost more than a tenth.");
    }
    Ok(())
}

fn on_one_cpu(program: &Program, plan: Plan, report: &mut Report, all: &CpuSet) -> Result<()> {
    let cpu = cpu::claim()?;
    println!("\n{} on CPU {cpu} alone", program.name);
    report.measured.push(measure(program, "one CPU", plan)?);
    sched_setaffinity(Pid::from_raw(0), all).context("leaving the one CPU")
}

fn measure(program: &Program, cpus: &'static str, plan: Plan) -> Result<Measured> {
    let world = World::new(program, Size { pairs: 1, cold: plan.rounds, workers: None })?;
    println!("  two nodes stand");
    let memory = memory::measure(&world, plan.held)?;
    println!("  memory is taken");
    let mut rounds = Vec::new();
    for round in 0..plan.rounds {
        for case in CASES {
            let one = turn(&world, case, round, plan)?;
            println!(
                "  round {} of {}: {}: {:.1} {unit} direct, {:.1} {unit} meshed; agents {:.3} {}",
                round + 1,
                plan.rounds,
                case.title(),
                case.figure(&one.direct),
                case.figure(&one.meshed),
                case.per_work(one.meshed.mesh(), &one.meshed),
                case.cost_unit(),
                unit = case.unit(),
            );
            rounds.push(one);
        }
    }
    println!("  connections at a steady {STEADY}/s");
    let steady = steady(&world, plan.steady)?;
    Ok(Measured::new(program.name.clone(), cpus, rounds, memory, steady))
}

/// Both ways, in an order that turns around from round to round.
fn turn(world: &World, case: Case, round: usize, plan: Plan) -> Result<Round> {
    let order = case.order(plan.seconds);
    let direct = || {
        // A cold tunnel has no match without a mesh but a new connection.
        let order = if case == Case::Cold { Case::Connect.order(plan.seconds) } else { order };
        world.slice(Way::Direct, &Order { streams: case.order(0.0).streams, ..order })
    };
    let meshed = || world.slice(case.way(round), &order);
    let (direct, meshed) = if round.is_multiple_of(2) {
        let direct = direct()?;
        (direct, meshed()?)
    } else {
        let meshed = meshed()?;
        (direct()?, meshed)
    };
    Ok(Round { case, direct, meshed })
}

/// New connections to one port, so that pairs of ports come again soon.
fn steady(world: &World, seconds: f64) -> Result<[Slice; 2]> {
    world.narrow_ports(NARROW)?;
    let order = Order { rate: Some(STEADY), ports: 1, seconds, pairs: Some(1), ..Order::connect(1) };
    let slices = [world.slice(Way::Direct, &order)?, world.slice(Way::Meshed, &order)?];
    world.narrow_ports(WIDE)?;
    Ok(slices)
}

/// The curves of every agent: with one worker, and with two where the machine has them.
fn grow(programs: &[Program], seconds: f64, report: &mut Report) -> Result<()> {
    command::run(std::process::Command::new("renice").args([
        "-n",
        "-19",
        "-p",
        &std::process::id().to_string(),
    ]))?;
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    for program in programs {
        for workers in (1..=2).filter(|workers| *workers <= cpus) {
            println!("\n{}, workers of each agent: {workers}", program.name);
            report.growth.extend(growth::measure(program, workers, seconds)?);
        }
    }
    growth::print(&report.growth);
    Ok(())
}

/// Leaves everything as JSON, and a picture for each choice of CPUs.
fn leave(args: &Args, report: &Report) -> Result<()> {
    std::fs::create_dir_all(&args.out).with_context(|| format!("making {}", args.out.display()))?;
    let write = |name: &str, text: &str| {
        let path = args.out.join(name);
        std::fs::write(&path, text).with_context(|| format!("writing {}", path.display()))?;
        println!("{}", path.display());
        anyhow::Ok(())
    };
    write(if args.growth { "growth.json" } else { "data.json" }, &serde_json::to_string_pretty(report)?)?;
    for (cpus, name) in [("one CPU", "data-one-cpu.svg"), ("all CPUs", "data-all-cpus.svg")] {
        let agents: Vec<&Measured> = report.measured.iter().filter(|one| one.cpus == cpus).collect();
        if !agents.is_empty() {
            let title =
                format!("What the mesh leaves of the direct way, on {cpus} (Linux {})", report.kernel);
            write(name, &plot::svg(&title, &agents))?;
        }
    }
    if !report.growth.is_empty() {
        let title = format!("What things cost as work grows (Linux {})", report.kernel);
        write("growth.svg", &curves::svg(&title, &report.growth))?;
    }
    Ok(())
}

fn kernel() -> String {
    std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default().trim().to_owned()
}
