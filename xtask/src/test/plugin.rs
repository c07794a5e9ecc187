//! What the plugin's binary must be: static, small, and without an async runtime.
//!
//! The container runtime starts it for every pod of the node, on a host whose libraries are not ours to know.

use std::path::Path;
use std::process::Command;

use anyhow::{Result, bail};

use crate::shell;

/// Bytes of the stripped binary, at most.
const LARGEST: u64 = 3 << 20;
/// Crates that would be an async runtime.
const RUNTIMES: [&str; 3] = ["tokio v", "async-std v", "smol v"];

pub(super) fn check(plugin: &Path) -> Result<()> {
    let size = std::fs::metadata(plugin)?.len();
    // ldd fails on a static executable in some releases and says so in others.
    let linked = harness::command::finish(Command::new("ldd").arg(plugin), b"")?;
    let text = format!("{}{}", linked.stdout, linked.stderr);
    if !text.contains("statically linked") && !text.contains("not a dynamic executable") {
        bail!("{} is not static: {text}", plugin.display());
    }
    if size > LARGEST {
        bail!("{} has {size} bytes; at most {LARGEST} are allowed", plugin.display());
    }
    let mut tree = shell::cargo();
    let tree = shell::output(tree.args(["tree", "-p", "culvert-cni", "-e", "normal", "--prefix", "none"]))?;
    if let Some(line) = tree.lines().find(|line| RUNTIMES.iter().any(|runtime| line.starts_with(runtime))) {
        bail!("the plugin depends on an async runtime: {line}");
    }
    println!("  the plugin is static, {size} bytes, without an async runtime");
    Ok(())
}
