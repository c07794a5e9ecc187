//! The programs that demo and tests run: agent, plugin, the app of the pods, and the control plane for tests.
//!
//! All are linked statically (`.cargo/config.toml`), for what is shipped is: the image has nothing else in it.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result};

use crate::built::Built;
use crate::{build_ebpf, shell};

/// The profile of what is shipped.
pub(crate) const SHIPPED: &str = "dist";
const AGENT: [&str; 4] = ["-p", "culvert-node-agent", "--bin", "culvert"];

/// Where they are.
pub(crate) struct Binaries {
    pub(crate) agent: PathBuf,
    pub(crate) plugin: PathBuf,
    pub(crate) pod_app: PathBuf,
    pub(crate) control_plane: PathBuf,
}

impl Binaries {
    /// Those that the tests start: with assertions, and compiled in one go with the tests.
    pub(crate) fn of(built: &Built) -> Result<Self> {
        Ok(Self {
            agent: built.program("culvert")?,
            plugin: plugin()?,
            pod_app: built.program("pod-app")?,
            control_plane: built.program("control-plane")?,
        })
    }

    /// Builds them for people to look at, with the eBPF objects first: optimised, and soon there.
    pub(crate) fn release() -> Result<Self> {
        Self::with_agent("release")
    }

    /// Builds the agent as it is shipped, to be measured, and what is around it.
    pub(crate) fn shipped() -> Result<Self> {
        Self::with_agent(SHIPPED)
    }

    fn with_agent(profile: &str) -> Result<Self> {
        let agent = agent(profile)?;
        let around = ["-p", "culvert-harness", "--bin", "pod-app", "-p", "culvert-control-plane", "--bin"];
        let around = build("release", &[around.as_slice(), &["control-plane"]].concat(), |_| Ok(()))?;
        Ok(Self {
            agent,
            plugin: plugin()?,
            pod_app: around.join("pod-app"),
            control_plane: around.join("control-plane"),
        })
    }

    /// From now on the harness in this process starts these.
    pub(crate) fn announce(&self) {
        harness::node::use_binaries(self.environment().map(|(name, path)| (name, path.to_owned())));
    }

    /// The variables by which the harness finds them.
    pub(crate) fn environment(&self) -> [(&'static str, &Path); 4] {
        [
            ("CULVERT_BIN", &self.agent),
            ("CULVERT_CNI_BIN", &self.plugin),
            ("POD_APP_BIN", &self.pod_app),
            ("CONTROL_PLANE_BIN", &self.control_plane),
        ]
    }
}

/// Builds the agent, with the eBPF objects first.
pub(crate) fn agent(profile: &str) -> Result<PathBuf> {
    build_ebpf::ensure()?;
    let tell = |cargo: &mut Command| if profile == SHIPPED { tell_revision(cargo) } else { Ok(()) };
    Ok(build(profile, &AGENT, tell)?.join("culvert"))
}

/// Builds programs; returns where they are.
pub(crate) fn build(
    profile: &str,
    programs: &[&str],
    more: impl Fn(&mut Command) -> Result<()>,
) -> Result<PathBuf> {
    let mut cargo = shell::cargo();
    cargo.args(["build", "--profile", profile]).args(programs);
    more(&mut cargo)?;
    shell::run(&mut cargo)?;
    // The one profile whose directory has another name.
    let directory = if profile == "dev" { "debug" } else { profile };
    Ok(target_dir()?.join(host_triple()?).join(directory))
}

/// Has the agent know what it is built from, which its dump shows. Only what is shipped needs to: whatever else is built would
/// be built anew for every commit.
fn tell_revision(cargo: &mut Command) -> Result<()> {
    let git = |words: &[&str]| shell::output(Command::new("git").args(words).current_dir(shell::root()));
    // Outside of a checkout, as in a package's sources, it is not known.
    let Ok(revision) = git(&["rev-parse", "HEAD"]) else { return Ok(()) };
    let status = if git(&["status", "--porcelain"])?.trim().is_empty() { "Clean" } else { "Modified" };
    cargo.env("CULVERT_GIT_REVISION", revision.trim()).env("CULVERT_BUILD_STATUS", status);
    Ok(())
}

/// The plugin runs on the host, whose C library is not ours to know.
pub(crate) fn plugin() -> Result<PathBuf> {
    Ok(build("plugin", &["-p", "culvert-cni"], |_| Ok(()))?.join("culvert-cni"))
}

/// The machine's target, as rustc calls it.
pub(crate) fn host_triple() -> Result<String> {
    let version = shell::output(Command::new("rustc").arg("-vV").current_dir(shell::root()))?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: "));
    Ok(host.context("rustc -vV names no host")?.to_owned())
}

/// Where cargo puts what it builds.
pub(crate) fn target_dir() -> Result<PathBuf> {
    let mut cargo = shell::cargo();
    let metadata = shell::output(cargo.args(["metadata", "--no-deps", "--format-version=1"]))?;
    let metadata: serde_json::Value = serde_json::from_str(&metadata)?;
    let target = metadata.get("target_directory").and_then(serde_json::Value::as_str);
    Ok(target.context("cargo metadata names no target_directory")?.into())
}
