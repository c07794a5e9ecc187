//! `image`: the agent and the plugin as a container image, without a container engine.
//!
//! Both are linked statically, so that the image has nothing else in it. Invariant: the same sources and toolchain make the same
//! bytes: nothing in the archive says when or by whom it was made.

mod archive;
mod layout;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::binaries::{self, Binaries, target_dir};
use crate::shell;

use self::archive::Archive;
use self::layout::{Image, pack};

/// Bytes of the image at most: as it is sent, and of what is shipped also as it lies on a node.
const LARGEST: usize = 25 << 20;
/// The name of an image that is not given another one.
pub(crate) const NAME: &str = concat!("localhost/culvert:", env!("CARGO_PKG_VERSION"));
/// How names are looked up: the C library reads no other file of its own in this image.
const NSSWITCH: &[u8] = b"hosts: files dns\n";

#[derive(clap::Args)]
pub(crate) struct Args {
    /// Where the archive goes (an OCI image layout in a tar file); target/image/culvert.tar if it is not named.
    #[arg(long)]
    output: Option<PathBuf>,
    /// The name under which it is imported.
    #[arg(long, default_value = NAME)]
    name: String,
    /// A directory that is filled with what is in the image, for whoever builds it with other tools.
    #[arg(long)]
    unpack: Option<PathBuf>,
    /// The profile that the agent is built with; what is shipped is `dist`, which takes minutes.
    #[arg(long, default_value = binaries::SHIPPED)]
    profile: String,
}

pub(crate) fn run(args: &Args) -> Result<()> {
    let output = match &args.output {
        Some(output) => output.clone(),
        None => target_dir()?.join("image/culvert.tar"),
    };
    let layer = make(&output, &args.name, &binaries::agent(&args.profile)?, &binaries::plugin()?)?;
    if layer.len() > LARGEST {
        bail!("the image has {} bytes when it is unpacked; at most {LARGEST} are allowed", layer.len());
    }
    if let Some(directory) = &args.unpack {
        unpack(&layer, directory)?;
    }
    println!("To import it into containerd: ctr -n k8s.io images import {}", output.display());
    Ok(())
}

/// What its containers run, and with which variables, as the specification of images has it (`config`).
pub(crate) fn config() -> Value {
    json!({ "Entrypoint": ["/usr/bin/culvert"], "Cmd": ["run"], "Env": ["PATH=/usr/bin"] })
}

/// Makes the image of what the tests run; returns where its archive is.
pub(crate) fn of(tested: &Binaries) -> Result<PathBuf> {
    let output = target_dir()?.join("image/tests.tar");
    make(&output, NAME, &tested.agent, &tested.plugin)?;
    Ok(output)
}

/// Makes an image of these two, into the file `output`; returns the archive of its only layer.
fn make(output: &Path, name: &str, agent: &Path, plugin: &Path) -> Result<Vec<u8>> {
    let directory = target_dir()?.join("image");
    std::fs::create_dir_all(&directory).with_context(|| directory.display().to_string())?;
    let mut layer = Archive::default();
    layer.directory("etc");
    layer.file("etc/nsswitch.conf", NSSWITCH, 0o644)?;
    // What is mounted over anyway, so that a file system that is read-only has a place for it.
    layer.directory("tmp");
    layer.directory("usr");
    layer.directory("usr/bin");
    for (path, program) in [("usr/bin/culvert", agent), ("usr/bin/culvert-cni", plugin)] {
        check_static(program)?;
        let program = stripped(program)?;
        let content = std::fs::read(&program).with_context(|| program.display().to_string())?;
        layer.file(path, &content, 0o755)?;
    }
    let layer = layer.finish();
    let unpacked = layer.len();
    let architecture = architecture(&binaries::host_triple()?)?;
    let image = Image { layer, name, architecture, config: config() };
    let packed = pack(&image)?;
    if packed.len() > LARGEST {
        bail!("the image has {} bytes, and {unpacked} unpacked; at most {LARGEST} are allowed", packed.len());
    }
    if let Some(directory) = output.parent() {
        std::fs::create_dir_all(directory)?;
    }
    std::fs::write(output, &packed).with_context(|| output.display().to_string())?;
    println!("  {} is {name}: {} bytes, {unpacked} unpacked", output.display(), packed.len());
    Ok(image.layer)
}

/// Fills a directory with what is in the layer.
fn unpack(layer: &[u8], directory: &Path) -> Result<()> {
    std::fs::create_dir_all(directory).with_context(|| directory.display().to_string())?;
    let mut tar = Command::new("tar");
    let ended = harness::command::finish(tar.arg("-xf").arg("-").arg("-C").arg(directory), layer)?;
    if !ended.status.success() {
        bail!("unpacking into {}: {}", directory.display(), ended.stderr.trim());
    }
    Ok(())
}

/// A program without what is for debuggers, beside the image.
fn stripped(program: &Path) -> Result<PathBuf> {
    let output = target_dir()?.join("image").join(program.file_name().context("a program without a name")?);
    let mut strip = Command::new("strip");
    strip.arg("--strip-all").arg("-o").arg(&output).arg(program);
    shell::output(&mut strip).context("strip is of the package binutils")?;
    Ok(output)
}

/// A program that looks for a loader would find none in the image.
fn check_static(program: &Path) -> Result<()> {
    let said = harness::command::finish(Command::new("ldd").arg(program), b"")?;
    let text = format!("{}{}", said.stdout, said.stderr);
    if text.contains("statically linked") || text.contains("not a dynamic executable") {
        return Ok(());
    }
    bail!(
        "{} is not static: {text}; RUSTFLAGS of the environment, if it is set, takes the place of .cargo/config.toml",
        program.display()
    );
}

/// The machine as images name it.
fn architecture(triple: &str) -> Result<&'static str> {
    match triple.split('-').next() {
        Some("x86_64") => Ok("amd64"),
        Some("aarch64") => Ok("arm64"),
        _ => bail!("images of {triple} are not made"),
    }
}
