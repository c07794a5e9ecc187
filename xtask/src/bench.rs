//! `bench WHAT`: builds the benchmark program for release and runs it; see docs/performance.md.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Result;
use harness::run::find_tool;

use crate::binaries::Binaries;
use crate::built::Built;
use crate::setup::Need;
use crate::{binaries, build_ebpf, setup, shell};

/// Beside what every namespace needs: what capture is compared with, and the tool that gives the run its priority.
const NEEDS: [Need; 4] = [
    Need { package: "iproute2", present: || find_tool("ip").is_some() },
    Need { package: "util-linux", present: || find_tool("nsenter").is_some() },
    Need { package: "bsdutils", present: || Path::new("/usr/bin/renice").exists() },
    Need { package: "iptables", present: || find_tool("iptables-restore").is_some() },
];

#[derive(clap::Args)]
pub(crate) struct Args {
    /// What is measured.
    what: What,
    /// Fail if a figure is worse than the committed floor, or its target.
    #[arg(long)]
    check: bool,
    /// Fewer rounds: less than a minute; of `data` less than three, with the programs that the tests use, against a floor of
    /// their own.
    #[arg(long)]
    short: bool,
    /// Of `data`: how costs grow with connections, pods, sizes of messages and workers, in place of the table.
    #[arg(long)]
    growth: bool,
    /// Of `data`: another agent to measure beside ours, a program and its first words. docs/performance.md has its contract.
    #[arg(long, value_name = "CMD")]
    agent: Vec<String>,
    /// Of `data`: where to leave what was measured, and pictures of it. Default: target/bench.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum What {
    /// What capture costs a connection, a pod and a node; as root.
    Capture,
    /// What the mesh costs: memory, updates, look-ups, start-up, and a control plane's changes under load; as root.
    Control,
    /// What many at once cost: 20 000 idle connections, and what a pod that opens 5000 a second takes from its neighbour; as root.
    Crowd,
    /// What the data path costs: throughput, connections, requests and memory, beside the same without a mesh; as root.
    Data,
    /// What enrolment costs: the time that the plugin adds to a pod's start; as root.
    Enrol,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    setup::require_root()?;
    setup::ensure(&NEEDS)?;
    build_ebpf::ensure()?;
    // What is shipped takes a quarter of an hour to build, for which every change would wait; the tests' programs are there.
    let is_quick = args.short && matches!(args.what, What::Data);
    let binaries = match args.what {
        What::Capture => None,
        What::Control | What::Crowd | What::Data | What::Enrol => {
            setup::ensure(&setup::RUNTIME)?;
            Some(if is_quick { Binaries::of(&Built::all()?)? } else { Binaries::shipped()? })
        }
    };
    let profile = if is_quick { "dev" } else { "release" };
    let mut bench = program(profile)?;
    bench.arg(args.what.name());
    if matches!(args.what, What::Data) {
        bench.args(args.agent.iter().flat_map(|agent| ["--agent", agent.as_str()]));
        bench.arg("--out").arg(args.out.clone().map_or_else(default_out, Ok)?);
        if args.growth {
            bench.arg("--growth");
        }
    }
    bench.envs(binaries.iter().flat_map(Binaries::environment));
    for (flag, set) in [("--check", args.check), ("--short", args.short)] {
        if set {
            bench.arg(flag);
        }
    }
    shell::run(&mut bench)
}

/// Runs those that are measured by hand once in their short form with the tests' programs, so that each is known to work. What they
/// measure then is judged by nobody.
pub(crate) fn rehearse(binaries: &Binaries) -> Result<()> {
    setup::ensure(&NEEDS)?;
    println!("\nThe benchmarks with the tests' programs, whose figures nobody judges:");
    for what in [What::Capture, What::Control, What::Crowd, What::Enrol] {
        println!("\n== bench {} --short", what.name());
        let mut bench = program("dev")?;
        bench.args([what.name(), "--short"]).envs(binaries.environment());
        shell::run(&mut bench)?;
    }
    Ok(())
}

/// The benchmark program, built.
fn program(profile: &str) -> Result<Command> {
    let built = binaries::build(profile, &["-p", "culvert-bench"], |_| Ok(()))?;
    Ok(Command::new(built.join("culvert-bench")))
}

impl What {
    fn name(self) -> &'static str {
        match self {
            Self::Capture => "capture",
            Self::Control => "control",
            Self::Crowd => "crowd",
            Self::Data => "data",
            Self::Enrol => "enrol",
        }
    }
}

/// Where figures are left.
fn default_out() -> Result<PathBuf> {
    Ok(binaries::target_dir()?.join("bench"))
}
