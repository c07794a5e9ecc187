//! The command line of the `culvert` binary.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::config::{ConfigArgs, Flags};

/// Where sockets, lock and enrolment records are.
pub(crate) const RUN_DIR: &str = "/run/culvert";
/// Where links and maps are pinned.
pub(crate) const BPFFS: &str = "/sys/fs/bpf/culvert";
/// The process table.
pub(crate) const PROC: &str = "/proc";

/// The node data plane of an ambient service mesh.
#[derive(Debug, Parser)]
#[command(name = "culvert", version, about)]
pub(crate) struct Cli {
    #[command(subcommand)]
    pub(crate) command: Command,
}

/// What to do.
#[derive(Debug, Subcommand)]
pub(crate) enum Command {
    /// Run the node's agent.
    Run(RunArgs),
    /// Install the CNI plugin on this node, once; `culvert run` does so by itself.
    Install(RunArgs),
    /// Remove the CNI plugin, its entry in the network configuration and its kubeconfig from this node.
    Uninstall(RunArgs),
    /// Show the configuration that `culvert run` would have, each value with its source, or everything that is wrong with it.
    Config(ConfigArgs),
    /// Release every pod and remove all that capture has left on this node; no agent may be running.
    Detach(DetachArgs),
    /// Show the capture of this node's pods line by line, with what is wrong and how to mend it.
    ///
    /// Ends with 0 if everything is whole, 1 if something is wrong, 2 if no agent answers.
    Verify(VerifyArgs),
    /// Show how many pods of this node are in which state.
    Status(StatusArgs),
}

/// Where an installation keeps its things. Two agents on one kernel need different ones.
#[derive(Clone, Debug, Args)]
pub(crate) struct Place {
    /// Sockets, lock and enrolment records.
    #[arg(long, env = "CULVERT_RUN_DIR", default_value = RUN_DIR)]
    pub(crate) run_dir: PathBuf,
    /// Directory in the BPF file system for links and maps that outlive the agent.
    #[arg(long, env = "CULVERT_BPFFS", default_value = BPFFS)]
    pub(crate) bpffs: PathBuf,
    /// The process table that shows the node's containers.
    #[arg(long, env = "CULVERT_PROC", default_value = PROC)]
    pub(crate) proc: PathBuf,
}

/// Options of `culvert run`, `install` and `uninstall`: one flag for each setting.
#[derive(Clone, Debug, Args)]
pub(crate) struct RunArgs {
    #[command(flatten)]
    pub(crate) flags: Flags,
}

/// How to show something.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Output {
    /// For people.
    #[default]
    Table,
    /// For programs.
    Json,
}

/// Where to ask.
#[derive(Clone, Debug, Args)]
pub(crate) struct Asked {
    /// The agent's run directory.
    #[arg(long, env = "CULVERT_RUN_DIR", default_value = RUN_DIR)]
    pub(crate) run_dir: PathBuf,
    /// Form of the answer.
    #[arg(long, short, value_enum, default_value_t)]
    pub(crate) output: Output,
}

/// Options of `culvert verify`.
#[derive(Clone, Debug, Args)]
pub(crate) struct VerifyArgs {
    /// One pod only.
    #[arg(value_name = "NAMESPACE/POD")]
    pub(crate) pod: Option<String>,
    #[command(flatten)]
    pub(crate) asked: Asked,
}

/// Options of `culvert status`.
#[derive(Clone, Debug, Args)]
pub(crate) struct StatusArgs {
    #[command(flatten)]
    pub(crate) asked: Asked,
}

/// Options of `culvert detach`.
#[derive(Clone, Debug, Args)]
pub(crate) struct DetachArgs {
    #[command(flatten)]
    pub(crate) place: Place,
}
