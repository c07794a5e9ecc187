//! `fuzz [TARGET..]`: feeds targets of `tests/fuzz` with what libFuzzer makes up, one after the other, each beginning with what is kept
//! of it.
//!
//! The installed compiler does it: what instruments the code is part of it. Instrumented are the crates that read bytes of
//! strangers; all others are used as the tests use them. An input that breaks a target is
//! written to `target/fuzz/TARGET/`; keep it under `tests/fuzz/corpus/TARGET/`, where the unit tests replay it. The targets after a
//! broken one are fed all the same, and the broken ones are named at the end.

use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use crate::binaries::{host_triple, target_dir};
use crate::setup::{self, Need};
use crate::shell;

/// Where targets and what is kept of them are.
const CRATE: &str = "tests/fuzz";
/// What is instrumented: packages, and how the compiler calls their crates.
const INSTRUMENTED: [(&str, &str); 10] = [
    ("culvert-fuzz", "fuzz"),
    ("culvert-cni", "cni"),
    ("culvert-control", "control"),
    ("culvert-mesh", "mesh"),
    ("culvert-protocols", "protocols"),
    ("culvert-tunnel", "tunnel"),
    ("granit-parser", "granit_parser"),
    ("hickory-proto", "hickory_proto"),
    ("httparse", "httparse"),
    ("serde-saphyr", "serde_saphyr"),
];
/// Counters of edges, and what is compared with what.
const SWITCHES: [&str; 5] = [
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
];
/// libFuzzer is written in C++.
const COMPILER: [Need; 1] = [Need { package: "g++", present: || harness::run::find_tool("c++").is_some() }];

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Which targets; all if none is named. `list` shows them.
    targets: Vec<String>,
    /// For how long, each.
    #[arg(long, default_value_t = 10)]
    minutes: u64,
    /// The same in seconds.
    #[arg(long, conflicts_with = "minutes")]
    seconds: Option<u64>,
    /// Tell what came of it, and not how it goes.
    #[arg(long)]
    quiet: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let corpus = shell::root().join(CRATE).join("corpus");
    let known = targets(&corpus)?;
    if args.targets == ["list"] {
        println!("Targets: {}", known.join(", "));
        return Ok(());
    }
    if let Some(unknown) = args.targets.iter().find(|name| !known.contains(name)) {
        bail!("there is no target {unknown}; there are {}", known.join(", "));
    }
    let wanted = if args.targets.is_empty() { &known } else { &args.targets };
    setup::ensure(&COMPILER)?;
    let program = build()?;
    let seconds = args.seconds.unwrap_or(args.minutes.saturating_mul(60));
    let mut broken = Vec::new();
    for (number, target) in wanted.iter().enumerate() {
        println!("\n== {target}, {} of {}, for {seconds} s", number + 1, wanted.len());
        if let Err(error) = feed(&program, target, &corpus, (seconds, args.quiet)) {
            println!("{target}: {error:#}");
            broken.push(target.as_str());
        }
    }
    if !broken.is_empty() {
        bail!("broken, with the input under target/fuzz/TARGET: {}", broken.join(", "));
    }
    Ok(())
}

/// Feeds each target for a second, so that the command is known to work.
pub(crate) fn rehearse() -> Result<()> {
    run(&Args { targets: Vec::new(), minutes: 0, seconds: Some(1), quiet: true })
}

/// Builds the program that has all targets in it.
fn build() -> Result<PathBuf> {
    let mut build = shell::cargo();
    build.args(["build", "-p", "culvert-fuzz", "--features", "libfuzzer", "--bin", "libfuzzer"]);
    // A place of its own: what is instrumented is of no use elsewhere.
    let place = target_dir()?.join("fuzz");
    let built = place.join("build");
    // Without the C library in it, which is not there for C++.
    build.arg("--target-dir").arg(&built).env("RUSTFLAGS", "").env("RUSTC_WRAPPER", compiler(&place)?);
    for (package, _) in INSTRUMENTED {
        build.arg("--config").arg(format!("profile.dev.package.{package}.opt-level=2"));
    }
    shell::run(&mut build)?;
    Ok(built.join(host_triple()?).join("debug/libfuzzer"))
}

/// What stands before the compiler and gives it the switches for some crates. Cargo would give them to build scripts as well, which
/// are linked without libFuzzer.
fn compiler(place: &Path) -> Result<PathBuf> {
    let names = INSTRUMENTED.map(|(_, name)| format!("*\" --crate-name {name} \"*"));
    let script = format!(
        "#!/bin/sh\nrustc=$1\nshift\ncase \" $* \" in\n{}) set -- \"$@\" {} ;;\nesac\nexec \"$rustc\" \"$@\"\n",
        names.join(" | "),
        SWITCHES.join(" ")
    );
    let path = place.join("rustc");
    std::fs::create_dir_all(place).with_context(|| place.display().to_string())?;
    std::fs::write(&path, script).with_context(|| path.display().to_string())?;
    std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755))?;
    Ok(path)
}

/// Feeds one target until its time is over, or an input breaks it.
fn feed(program: &Path, target: &str, corpus: &Path, (seconds, quiet): (u64, bool)) -> Result<()> {
    let found = target_dir()?.join("fuzz").join(target);
    let growing = found.join("corpus");
    std::fs::create_dir_all(&growing).with_context(|| growing.display().to_string())?;
    let mut fuzz = std::process::Command::new(program);
    fuzz.current_dir(shell::root()).env("FUZZ_TARGET", target);
    fuzz.arg(format!("-max_total_time={seconds}"));
    // A target that takes seconds for one input, or a gigabyte, has a fault as well.
    fuzz.args(["-timeout=10", "-rss_limit_mb=1024", "-max_len=4096", "-print_final_stats=1"]);
    if quiet {
        fuzz.arg("-verbosity=0");
    }
    fuzz.arg(format!("-artifact_prefix={}/", found.display()));
    fuzz.arg(&growing).arg(corpus.join(target));
    shell::run(&mut fuzz)
}

/// Each target has a directory of what is kept of it.
fn targets(corpus: &Path) -> Result<Vec<String>> {
    let entries = std::fs::read_dir(corpus).with_context(|| corpus.display().to_string())?;
    let mut names: Vec<String> =
        entries.flatten().map(|entry| entry.file_name().to_string_lossy().into_owned()).collect();
    names.sort();
    Ok(names)
}
