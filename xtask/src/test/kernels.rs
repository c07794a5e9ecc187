//! `test kernels`: capture on this machine's kernel, and on others in virtual machines with an emulated processor.
//!
//! One static program, `tests/kernels`, does all the checking. A guest is that program, the agent, a kernel and some modules: it has no
//! disk, no network, no shell. A kernel that cannot be had fails the suite; none is left out.

mod guest;
mod images;
mod initrd;

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Result, bail, ensure};
use harness::run::find_tool;

use self::images::Image;
use crate::built::Built;
use crate::setup::{self, Need};
use crate::{binaries, shell};

/// How many are there at once.
#[derive(clap::Args)]
pub(super) struct Crowd {
    /// Of `kernels`: how many idle connections the newest guest has through one pair of agents, which are then built as they are shipped;
    /// 2000 if it is not said. 20000 take minutes.
    #[arg(long, value_name = "N")]
    idle: Option<usize>,
}

/// Idle connections if it is not said: of thousands each is emulated.
const IDLE: usize = 2_000;

impl Crowd {
    pub(super) fn only_for_kernels(&self, is_it: bool) -> Result<()> {
        ensure!(is_it || self.idle.is_none(), "--idle is of kernels: cargo xtask test kernels --idle 20000");
        Ok(())
    }
}

/// A virtual machine to boot.
struct Guest {
    /// First numbers of its Debian kernel.
    series: &'static str,
    /// What it has that others have not.
    special: &'static str,
    /// More words for its kernel.
    words: &'static str,
    /// Whether it has many connections at once.
    crowded: bool,
}

/// The oldest kernel with a long life that capture runs on, the newest, with many connections at once, and one as careful people boot it.
const GUESTS: [Guest; 3] = [
    Guest { series: "6.1", special: "", words: "", crowded: false },
    Guest { series: "6.12", special: "", words: "", crowded: true },
    Guest { series: "6.1", special: " without IPv6", words: "ipv6.disable=1", crowded: false },
];
/// MiB for the kernel, the programs, and what they unpack, and for many connections.
const MEMORY: [u32; 2] = [512, 2048];
/// The line with which the program says that everything passed.
const PASSED: &str = "kernel-checks: passed";
/// A guest needs seconds, and one with many connections minutes if the machine has else to do.
const LIMIT: Duration = Duration::from_secs(900);

/// For the guests and the program in them.
const NEEDS: [Need; 4] = [
    Need { package: "qemu-system-x86", present: || find_tool(guest::QEMU).is_some() },
    Need { package: "xz-utils", present: || find_tool("xz").is_some() },
    Need { package: "gcc", present: || find_tool("cc").is_some() },
    Need { package: "libc6-dev", present: || std::path::Path::new("/usr/include/stdio.h").exists() },
];

/// How it went on one kernel.
struct Outcome {
    kernel: String,
    passed: bool,
    took: Duration,
}

pub(super) fn run(crowd: &Crowd) -> Result<()> {
    println!("\n== kernels: capture on this machine's kernel and on others");
    setup::require_root()?;
    if std::env::consts::ARCH != "x86_64" {
        bail!("the guests' kernels are Debian's for x86_64; this machine is {}", std::env::consts::ARCH);
    }
    setup::ensure(&NEEDS)?;
    let images = GUESTS.iter().map(|guest| Image::get(guest.series)).collect::<Result<Vec<_>>>()?;
    // Static, as all that is built here: a guest has no C library.
    let built = Built::all()?;
    // How many an agent bears is asked of the one that is shipped: what the tests have works slowly, here on an emulated processor.
    let agent =
        if crowd.idle.is_some() { binaries::agent(binaries::SHIPPED)? } else { built.program("culvert")? };
    let agent = without_symbols(&agent)?;
    // No test stands beside it, for which it would be built with the others.
    let program =
        binaries::build("dev", &["--quiet", "-p", "culvert-kernel-tests"], |_| Ok(()))?.join("kernel-checks");

    let mut outcomes = vec![measured(own_kernel()?, || {
        let mut command = Command::new(&program);
        command.stdin(Stdio::null());
        guest::follow(&mut command, LIMIT, PASSED)
    })?];
    let [usual, much] = MEMORY;
    let connections = format!("IDLE_CONNECTIONS={}", crowd.idle.unwrap_or(IDLE));
    for (image, Guest { special, words, crowded, .. }) in images.iter().zip(&GUESTS) {
        let initrd = image.initrd(&program, &agent)?;
        let (memory, words) =
            if *crowded { (much, format!("{words} {connections}")) } else { (usual, (*words).to_owned()) };
        outcomes.push(measured(format!("{}{special}", image.release), || {
            guest::follow(&mut guest::command(&image.vmlinuz, &initrd, &words, memory), LIMIT, PASSED)
        })?);
    }
    tell(&outcomes)
}

/// A copy of a program, of less than half the size, for a guest has all its files in memory.
fn without_symbols(program: &Path) -> Result<PathBuf> {
    let directory = shell::root().join("target/kernels");
    std::fs::create_dir_all(&directory)?;
    let copy = directory.join("culvert");
    shell::run(Command::new("strip").arg("-o").arg(&copy).arg(program))?;
    Ok(copy)
}

fn measured(kernel: String, work: impl FnOnce() -> Result<bool>) -> Result<Outcome> {
    println!("\n-- {kernel}");
    let started = Instant::now();
    let passed = work()?;
    Ok(Outcome { kernel, passed, took: started.elapsed() })
}

fn tell(outcomes: &[Outcome]) -> Result<()> {
    println!("\nKernels:");
    for Outcome { kernel, passed, took } in outcomes {
        let verdict = if *passed { "passed" } else { "FAILED" };
        println!("  {kernel:<40} {verdict}  {:5.1} s", took.as_secs_f32());
    }
    let failed: Vec<_> = outcomes.iter().filter(|o| !o.passed).map(|o| o.kernel.as_str()).collect();
    if failed.is_empty() { Ok(()) } else { bail!("capture does not work on {}", failed.join(", ")) }
}

fn own_kernel() -> Result<String> {
    let release = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
    Ok(format!("{} (this machine)", release.trim()))
}
