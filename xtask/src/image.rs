//! `image`: the agent and the plugin as a container image, without a container engine.
//!
//! Both are linked statically, so that the image has nothing else in it. Invariant: the same sources and toolchain make the same
//! bytes: nothing in the archive says when or by whom it was made.

mod archive;
mod layout;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};

use crate::binaries::{self, host_triple, target_dir};
use crate::{build_ebpf, shell};

use self::archive::Archive;
use self::layout::{Image, pack};

/// Bytes of the image at most, packed and unpacked.
const LARGEST: usize = 25 << 20;
/// The profile whose programs are for tests; cargo calls its directory otherwise.
const DEV: &str = "dev";
/// How names are looked up: the C library reads no other file of its own in this image.
const NSSWITCH: &[u8] = b"hosts: files dns\n";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where the archive goes (an OCI image layout in a tar file); target/image/culvert.tar if it is not named.
    #[arg(long)]
    output: Option<PathBuf>,
    /// The name under which it is imported.
    #[arg(long, default_value = concat!("localhost/culvert:", env!("CARGO_PKG_VERSION")))]
    name: String,
    /// The profile that the agent is built with; what is shipped is `dist`, which takes minutes.
    #[arg(long, default_value = binaries::SHIPPED)]
    profile: String,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let output = match &args.output {
        Some(output) => output.clone(),
        None => target_dir()?.join("image/culvert.tar"),
    };
    build(&output, &args.name, &args.profile)?;
    println!("To import it into containerd: ctr -n k8s.io images import {}", output.display());
    Ok(())
}

/// Builds the image `name` into the file `output`, with an agent of this profile.
pub(crate) fn build(output: &Path, name: &str, profile: &str) -> Result<()> {
    build_ebpf::ensure()?;
    let triple = host_triple()?;
    let agent = agent(&triple, profile)?;
    let plugin = binaries::plugin(&target_dir()?)?;
    let mut layer = Archive::default();
    layer.directory("etc");
    layer.file("etc/nsswitch.conf", NSSWITCH, 0o644)?;
    // What is mounted over anyway, so that a file system that is read-only has a place for it.
    layer.directory("tmp");
    layer.directory("usr");
    layer.directory("usr/bin");
    for (path, program) in [("usr/bin/culvert", &agent), ("usr/bin/culvert-cni", &plugin)] {
        check_static(program)?;
        let content = std::fs::read(program).with_context(|| program.display().to_string())?;
        layer.file(path, &content, 0o755)?;
    }
    let layer = layer.finish();
    let unpacked = layer.len();
    let image =
        Image { layer, name, architecture: architecture(&triple)?, entrypoint: &["/usr/bin/culvert"] };
    let packed = pack(&image)?;
    // What is not optimised is for tests, and larger.
    if profile != DEV && unpacked.max(packed.len()) > LARGEST {
        bail!("the image has {} bytes, and {unpacked} unpacked; at most {LARGEST} are allowed", packed.len());
    }
    if let Some(directory) = output.parent() {
        std::fs::create_dir_all(directory)?;
    }
    std::fs::write(output, &packed).with_context(|| output.display().to_string())?;
    println!("  {} is {name}: {} bytes, {unpacked} unpacked", output.display(), packed.len());
    Ok(())
}

/// The agent with the C library in it, and without what is for debuggers.
fn agent(triple: &str, profile: &str) -> Result<PathBuf> {
    let mut cargo = shell::cargo();
    cargo
        .args(["build", "--profile", profile, "-p", "culvert-node-agent", "--bin", "culvert"])
        .args(["--target", triple, "--no-default-features"])
        .args(["--config", &format!("profile.{profile}.debug=false")])
        .args(["--config", &format!("profile.{profile}.strip=true")])
        .env("RUSTFLAGS", "-C target-feature=+crt-static");
    if profile == binaries::SHIPPED {
        binaries::tell_revision(&mut cargo)?;
    }
    shell::run(&mut cargo)?;
    let directory = if profile == DEV { "debug" } else { profile };
    Ok(target_dir()?.join(triple).join(directory).join("culvert"))
}

/// A program that looks for a loader would find none in the image.
fn check_static(program: &Path) -> Result<()> {
    let said = harness::command::finish(Command::new("ldd").arg(program), b"")?;
    let text = format!("{}{}", said.stdout, said.stderr);
    if text.contains("statically linked") || text.contains("not a dynamic executable") {
        return Ok(());
    }
    bail!("{} is not static: {text}", program.display());
}

/// The machine as images name it.
fn architecture(triple: &str) -> Result<&'static str> {
    match triple.split('-').next() {
        Some("x86_64") => Ok("amd64"),
        Some("aarch64") => Ok("arm64"),
        _ => bail!("images of {triple} are not made"),
    }
}
