//! The command line of the `culvert` binary.

use std::net::{IpAddr, SocketAddr};
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::config::{ConfigArgs, Flags};

/// Where sockets, lock and enrolment records are.
pub(crate) const RUN_DIR: &str = "/run/culvert";
/// Where links and maps are pinned.
pub(crate) const BPFFS: &str = "/sys/fs/bpf/culvert";
/// The process table.
pub(crate) const PROC: &str = "/proc";

/// What the commands end with.
const CODES: &str = "\
Exit codes: 0 all is well, 1 something is wrong or the command failed, 2 no agent answers, 3 denied (trace, policy check), \
64 the command line is wrong.";

/// The node data plane of an ambient service mesh.
#[derive(Debug, Parser)]
#[command(name = "culvert", version, after_help = CODES)]
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
    Verify(VerifyArgs),
    /// Show in short how the agent of this node is: what it waits for, what feeds it, its certificates and pods.
    Status(StatusArgs),
    /// Show the pods of this node that are to be in the mesh, and how each of them is.
    Pods(PodsArgs),
    /// Show the connections of this node's pods that are open now.
    Connections(WatchArgs),
    /// Show whose certificates this node holds, and for how long they are good.
    Cert(Asked),
    /// Show what has happened lately on this node.
    Events(WatchEventsArgs),
    /// Show where a connection would go and why, without making it.
    Trace(TraceArgs),
    /// Ask policy.
    Policy(PolicyArgs),
    /// Show what the agent logs, or change it until `--reset` or its end.
    Logging(LoggingArgs),
    /// Show live who opens, fails and moves how much; needs a terminal.
    Top(TopArgs),
    /// Collect what helps to understand this node from afar in one archive, without secrets.
    Support(SupportArgs),
    /// Print a script that completes this command line in a shell.
    Completions(CompletionsArgs),
    /// Print a manual page, to be read by `man -l -`.
    Man(ManArgs),
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
    /// For both.
    Yaml,
}

/// Whom to ask.
#[derive(Clone, Debug, Args)]
pub(crate) struct Target {
    /// The agent's run directory.
    #[arg(long, env = "CULVERT_RUN_DIR", default_value = RUN_DIR)]
    pub(crate) run_dir: PathBuf,
    #[command(flatten)]
    pub(crate) far: FarArgs,
}

/// An agent of another node than this one.
#[derive(Clone, Debug, Args)]
#[command(next_help_heading = "Another node's agent")]
pub(crate) struct FarArgs {
    /// Ask the agent of this node of a cluster, through the API server.
    #[arg(long, value_name = "NODE")]
    pub(crate) node: Option<String>,
    /// How the API server is reached; by default $KUBECONFIG, or ~/.kube/config.
    #[arg(long, value_name = "FILE", requires = "node")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// The context of the kubeconfig, if it is not the current one.
    #[arg(long, value_name = "CONTEXT", requires = "node")]
    pub(crate) context: Option<String>,
    /// The namespace of the agents.
    #[arg(long, short, value_name = "NAMESPACE", default_value = "istio-system", requires = "node")]
    pub(crate) namespace: String,
    /// The agent's admin port.
    #[arg(long, value_name = "PORT", default_value_t = 15000, requires = "node")]
    pub(crate) proxy_admin_port: u16,
}

/// Whom to ask, and how to show the answer.
#[derive(Clone, Debug, Args)]
pub(crate) struct Asked {
    #[command(flatten)]
    pub(crate) target: Target,
    /// Form of the answer.
    #[arg(long, short, value_enum, default_value_t)]
    pub(crate) output: Output,
}

/// Options of `culvert verify`.
#[derive(Clone, Debug, Args)]
pub(crate) struct VerifyArgs {
    /// Pods of this name only, in whatever namespace, or the one of NAMESPACE/POD.
    #[arg(value_name = "POD")]
    pub(crate) pod: Option<String>,
    #[command(flatten)]
    pub(crate) asked: Asked,
}

/// Options of `culvert pods`.
#[derive(Clone, Debug, Args)]
pub(crate) struct PodsArgs {
    /// Pods of this name only, in whatever namespace, or the one of NAMESPACE/POD.
    #[arg(value_name = "POD")]
    pub(crate) pod: Option<String>,
    #[command(flatten)]
    pub(crate) asked: Asked,
}

/// Options of `culvert connections`.
#[derive(Clone, Debug, Args)]
pub(crate) struct WatchArgs {
    /// Those of pods of this name only, in whatever namespace, or of the one of NAMESPACE/POD.
    #[arg(value_name = "POD")]
    pub(crate) pod: Option<String>,
    /// Go on, and show what opens and closes.
    #[arg(long, short)]
    pub(crate) watch: bool,
    #[command(flatten)]
    pub(crate) asked: Asked,
}

/// Options of `culvert events`.
#[derive(Clone, Debug, Args)]
pub(crate) struct WatchEventsArgs {
    /// Go on, and show what happens.
    #[arg(long, short)]
    pub(crate) watch: bool,
    #[command(flatten)]
    pub(crate) asked: Asked,
}

/// Options of `culvert trace`.
#[derive(Clone, Debug, Args)]
pub(crate) struct TraceArgs {
    /// Who connects: POD, NAMESPACE/POD, the uid of a workload, or an address.
    #[arg(value_name = "POD|IP")]
    pub(crate) from: String,
    /// Where to. Without, only what is known of who connects is shown.
    #[arg(long, value_name = "IP:PORT")]
    pub(crate) to: Option<SocketAddr>,
    #[command(flatten)]
    pub(crate) asked: Asked,
}

/// Options of `culvert policy`.
#[derive(Clone, Debug, Args)]
pub(crate) struct PolicyArgs {
    #[command(subcommand)]
    pub(crate) command: PolicyCommand,
}

/// What to ask policy.
#[derive(Clone, Debug, Subcommand)]
pub(crate) enum PolicyCommand {
    /// Show whether a connection would be allowed, and the rule that decides.
    Check(PolicyCheckArgs),
}

/// Options of `culvert policy check`.
#[derive(Clone, Debug, Args)]
pub(crate) struct PolicyCheckArgs {
    /// Who connects, such as spiffe://cluster.local/ns/demo/sa/client; `none` for who comes in plaintext.
    #[arg(long, value_name = "ID")]
    pub(crate) from: String,
    /// The client's address; that of a workload of its identity if it is not given.
    #[arg(long, value_name = "IP")]
    pub(crate) source: Option<IpAddr>,
    /// Whom to: POD, NAMESPACE/POD, the uid of a workload, or an address.
    #[arg(long, value_name = "POD")]
    pub(crate) to: String,
    /// The port of the pod.
    #[arg(long)]
    pub(crate) port: u16,
    #[command(flatten)]
    pub(crate) asked: Asked,
}

/// Options of `culvert logging`.
#[derive(Clone, Debug, Args)]
pub(crate) struct LoggingArgs {
    /// error, warn, info, debug, trace or off; or SCOPE=LEVEL, several with commas.
    #[arg(value_name = "LEVEL")]
    pub(crate) level: Option<String>,
    /// Go back to what the agent was started with, first.
    #[arg(long)]
    pub(crate) reset: bool,
    #[command(flatten)]
    pub(crate) asked: Asked,
}

/// Options of `culvert top`.
#[derive(Clone, Debug, Args)]
pub(crate) struct TopArgs {
    /// Seconds between two looks.
    #[arg(long, value_name = "SECONDS", default_value_t = 2, value_parser = clap::value_parser!(u32).range(1..=3600))]
    pub(crate) every: u32,
    #[command(flatten)]
    pub(crate) target: Target,
}

/// Options of `culvert support`.
#[derive(Clone, Debug, Args)]
pub(crate) struct SupportArgs {
    /// The archive to make; by default culvert-support-SECONDS.tar.gz in the current directory.
    #[arg(long, value_name = "PATH")]
    pub(crate) file: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) target: Target,
}

/// Options of `culvert completions`.
#[derive(Clone, Debug, Args)]
pub(crate) struct CompletionsArgs {
    /// The shell.
    pub(crate) shell: clap_complete::Shell,
}

/// Options of `culvert man`.
#[derive(Clone, Debug, Args)]
pub(crate) struct ManArgs {
    /// One of the commands, instead of all in short.
    #[arg(value_name = "COMMAND")]
    pub(crate) command: Option<String>,
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
