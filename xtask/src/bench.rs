//! `bench WHAT`: builds the benchmark program for release and runs it; see docs/performance.md.

use std::path::Path;
use std::process::Command;

use anyhow::Result;
use harness::run::find_tool;

use crate::binaries::Binaries;
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
    /// Fewer rounds: less than a minute.
    #[arg(long)]
    short: bool,
}

#[derive(Clone, Copy, clap::ValueEnum)]
enum What {
    /// What capture costs a connection, a pod and a node; as root.
    Capture,
    /// What the mesh costs: memory, updates, look-ups, start-up, and a control plane's changes under load; as root.
    Control,
    /// What enrolment costs: the time that the plugin adds to a pod's start; as root.
    Enrol,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    setup::require_root()?;
    setup::ensure(&NEEDS)?;
    build_ebpf::ensure()?;
    let binaries = match args.what {
        What::Capture => None,
        What::Control | What::Enrol => {
            setup::ensure(&setup::RUNTIME)?;
            Some(Binaries::shipped()?)
        }
    };
    let built = binaries::build("release", &["-p", "culvert-bench"], |_| Ok(()))?;
    let mut bench = Command::new(built.join("culvert-bench"));
    bench.arg(match args.what {
        What::Capture => "capture",
        What::Control => "control",
        What::Enrol => "enrol",
    });
    bench.envs(binaries.iter().flat_map(Binaries::environment));
    for (flag, set) in [("--check", args.check), ("--short", args.short)] {
        if set {
            bench.arg(flag);
        }
    }
    shell::run(&mut bench)
}
