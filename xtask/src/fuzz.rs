//! `fuzz TARGET`: feeds a target of `tests/fuzz` with what libFuzzer makes up, beginning with what is kept of it.
//!
//! The installed compiler does it: what instruments the code is part of it, and only the switches are not stable. Instrumented
//! are the crates that read bytes of strangers; all others are used as the tests use them. An input that breaks a target is
//! written to `target/fuzz/TARGET/`; keep it under `tests/fuzz/corpus/TARGET/`, where the unit tests replay it.

use std::path::Path;

use anyhow::{Context as _, Result};

use crate::binaries::{host_triple, target_dir};
use crate::setup::{self, Need};
use crate::shell;

/// Where targets and what is kept of them are.
const CRATE: &str = "tests/fuzz";
/// What is instrumented.
const INSTRUMENTED: [&str; 5] =
    ["culvert-fuzz", "culvert-tunnel", "culvert-mesh", "culvert-control", "hickory-proto"];
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
    /// Which target; `list` shows them.
    target: String,
    /// For how long.
    #[arg(long, default_value_t = 60)]
    seconds: u64,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let corpus = shell::root().join(CRATE).join("corpus");
    let targets = targets(&corpus)?;
    if !targets.contains(&args.target) {
        println!("Targets: {}", targets.join(", "));
        anyhow::ensure!(args.target == "list", "there is no target {}", args.target);
        return Ok(());
    }
    setup::ensure(&COMPILER)?;
    let mut build = shell::cargo();
    // The switches of one crate are cargo's to pass on, which it calls unstable as well.
    build.args(["build", "-Zprofile-rustflags", "-p", "culvert-fuzz", "--features", "libfuzzer"]);
    let target = target_dir()?.join("fuzz");
    // A place of its own: with unstable switches much would be built anew, and after that anew without.
    let built = target.join("build");
    build.args(["--bin", &args.target]).arg("--target-dir").arg(&built).env("RUSTC_BOOTSTRAP", "1");
    // Without the C library in it, which is not there for C++.
    build.env("RUSTFLAGS", "");
    let switches = SWITCHES.map(|switch| format!("{switch:?}")).join(", ");
    for package in INSTRUMENTED {
        build.arg("--config").arg(format!("profile.dev.package.{package}.rustflags=[{switches}]"));
        build.arg("--config").arg(format!("profile.dev.package.{package}.opt-level=2"));
    }
    shell::run(&mut build)?;
    let found = target.join(&args.target);
    let growing = found.join("corpus");
    std::fs::create_dir_all(&growing).with_context(|| growing.display().to_string())?;
    let mut fuzz = std::process::Command::new(built.join(host_triple()?).join("debug").join(&args.target));
    fuzz.current_dir(shell::root());
    fuzz.arg(format!("-max_total_time={}", args.seconds));
    // A target that takes seconds for one input, or a gigabyte, has a fault as well.
    fuzz.args(["-timeout=10", "-rss_limit_mb=1024", "-max_len=4096", "-print_final_stats=1"]);
    fuzz.arg(format!("-artifact_prefix={}/", found.display()));
    fuzz.arg(&growing).arg(corpus.join(&args.target));
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
