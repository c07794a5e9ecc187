//! `build-ebpf`: compiles `redirect-ebpf/programs` for the BPF target into `target/bpf/{node,pod,guard}.o`.
//!
//! Plain stable Rust has no core library for that target. Two toolchains do, and either is taken (see [`toolchain`]);
//! bpf-linker turns the result into an object that the kernel takes. Objects newer than every source are left alone.

mod toolchain;

use std::fs;
use std::path::{Path, PathBuf};
use std::time::SystemTime;

use anyhow::{Context as _, Result};

use crate::shell;

const TARGET: &str = "bpfel-unknown-none";
/// The objects, and what the linker is told for each. BTF describes types to the kernel, which wants that of socket storage;
/// it would keep a copy for every pod.
const OBJECTS: [(&str, &[&str]); 3] = [("node", &["-Clink-arg=--btf"]), ("pod", &[]), ("guard", &[])];
/// What the objects are made of.
const SOURCES: [&str; 6] = [
    "redirect-ebpf/programs/src",
    "redirect-ebpf/programs/Cargo.toml",
    "redirect-ebpf/programs/Cargo.lock",
    "redirect-ebpf/abi/src",
    "redirect-ebpf/abi/Cargo.toml",
    "xtask/src/build_ebpf.rs",
];

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Install the toolchain and bpf-linker if they are missing.
    #[arg(long)]
    install: bool,
    /// Build although the objects are newer than their sources.
    #[arg(long)]
    force: bool,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    if up_to_date()? && !args.force {
        println!("target/bpf is up to date");
        return Ok(());
    }
    build(args.install)
}

/// Builds what is out of date, with whatever must be installed for it.
pub(crate) fn ensure() -> Result<()> {
    if up_to_date()? { Ok(()) } else { build(true) }
}

fn build(install: bool) -> Result<()> {
    let toolchain = toolchain::find(install)?;
    println!("Building the eBPF programs with {toolchain}");
    let programs = shell::root().join("redirect-ebpf/programs");
    let out = shell::root().join("target/bpf");
    fs::create_dir_all(&out)?;
    for (name, linker) in OBJECTS {
        let mut cargo = toolchain.cargo();
        cargo
            .current_dir(&programs)
            .args(["rustc", "--release", "--locked", "--target", TARGET, "--target-dir"])
            .arg(programs.join("target"))
            .args(["--bin", name, "--"])
            .args(linker)
            // Debug information is where BTF comes from.
            .env("RUSTFLAGS", "-C linker=bpf-linker -C debuginfo=2");
        shell::run(&mut cargo)?;
        let built = programs.join("target").join(TARGET).join("release").join(name);
        let object = object(name);
        fs::copy(&built, &object)
            .with_context(|| format!("copying {} to {}", built.display(), object.display()))?;
        println!("  {} ({} bytes)", object.display(), fs::metadata(&object)?.len());
    }
    Ok(())
}

fn object(name: &str) -> PathBuf {
    shell::root().join("target/bpf").join(format!("{name}.o"))
}

fn up_to_date() -> Result<bool> {
    let mut oldest: Option<SystemTime> = None;
    for (name, _) in OBJECTS {
        let Ok(metadata) = fs::metadata(object(name)) else { return Ok(false) };
        let modified = metadata.modified()?;
        oldest = Some(oldest.map_or(modified, |time| time.min(modified)));
    }
    let mut newest = SystemTime::UNIX_EPOCH;
    for source in SOURCES {
        newest = newest.max(newest_in(&shell::root().join(source))?);
    }
    Ok(oldest.is_some_and(|oldest| oldest > newest))
}

fn newest_in(path: &Path) -> Result<SystemTime> {
    let metadata = fs::metadata(path).with_context(|| path.display().to_string())?;
    let mut newest = metadata.modified()?;
    if metadata.is_dir() {
        for entry in fs::read_dir(path)? {
            newest = newest.max(newest_in(&entry?.path())?);
        }
    }
    Ok(newest)
}
