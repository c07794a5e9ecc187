//! The command line of the `culvert` binary.

mod limits;

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;

use clap::{Args, Parser, Subcommand};

use crate::logging::LogFormat;

use self::limits::LimitArgs;

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
    Run(Box<RunArgs>),
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
    #[arg(long, env = "CULVERT_RUN_DIR", default_value = "/run/culvert")]
    pub(crate) run_dir: PathBuf,
    /// Directory in the BPF file system for links and maps that outlive the agent.
    #[arg(long, env = "CULVERT_BPFFS", default_value = "/sys/fs/bpf/culvert")]
    pub(crate) bpffs: PathBuf,
    /// The process table that shows the node's containers.
    #[arg(long, env = "CULVERT_PROC", default_value = "/proc")]
    pub(crate) proc: PathBuf,
}

/// Options of `culvert run`.
#[derive(Clone, Debug, Args)]
pub(crate) struct RunArgs {
    /// YAML file with workloads, services, policies, the pods to enrol and the local CA; applied again on each change.
    #[arg(long, env = "LOCAL_XDS_PATH", value_name = "FILE")]
    pub(crate) mesh: PathBuf,
    /// Name of this node.
    #[arg(long, env = "NODE_NAME", default_value = "")]
    pub(crate) node: String,
    /// Network that this node is on.
    #[arg(long, env = "NETWORK", default_value = "")]
    pub(crate) network: String,
    #[command(flatten)]
    pub(crate) place: Place,
    /// If another agent of this installation runs, ask it to hand its pods over, instead of waiting until it ends.
    #[arg(long, env = "CULVERT_TAKE_OVER", default_value_t = false, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub(crate) take_over: bool,
    /// Seconds for which connections that are open go on after the pods were handed over to another agent.
    #[arg(long, env = "CULVERT_DRAIN_LIMIT", value_name = "SECONDS", default_value_t = 3600)]
    pub(crate) drain_limit: u64,
    /// Address of /metrics and /stats/prometheus.
    #[arg(long, env = "CULVERT_METRICS_ADDRESS", default_value = "[::]:15020")]
    pub(crate) metrics_address: SocketAddr,
    /// Address of /healthz/ready.
    #[arg(long, env = "CULVERT_READINESS_ADDRESS", default_value = "[::]:15021")]
    pub(crate) readiness_address: SocketAddr,
    /// Threads of the data path; 0 for one a CPU.
    #[arg(long, env = "ZTUNNEL_WORKER_THREADS", default_value_t = 0)]
    pub(crate) workers: usize,
    /// How two pods of this node are connected: `direct` leaves TLS out and vouches for both ends itself; see
    /// docs/design/same-node.md.
    #[arg(long, env = "SAME_NODE_TRANSPORT", value_enum, default_value_t)]
    pub(crate) same_node_transport: SameNodeTransport,
    /// Connections that one tunnel carries at most; the peer may allow fewer.
    #[arg(long, env = "POOL_MAX_STREAMS_PER_CONNECTION", value_name = "STREAMS", default_value = "100")]
    pub(crate) tunnel_streams: NonZeroUsize,
    /// Tunnels that a busy peer gets on each thread before any of them is full.
    #[arg(long, env = "CULVERT_TUNNELS_PER_PEER", value_name = "TUNNELS", default_value = "4")]
    pub(crate) tunnels_per_peer: NonZeroUsize,
    /// Whether DNS queries of pods go to the agent; the annotation ambient.istio.io/dns-capture overrides it for a pod.
    #[arg(long, env = "ISTIO_META_DNS_CAPTURE", default_value_t = true, action = clap::ArgAction::Set)]
    pub(crate) dns_capture: bool,
    /// Domain that names of Kubernetes end with.
    #[arg(long, env = "CLUSTER_DOMAIN", default_value = "cluster.local")]
    pub(crate) cluster_domain: String,
    /// Whether names of the mesh are answered with IPv6 addresses, too.
    #[arg(long, env = "IPV6_ENABLED", default_value_t = true, action = clap::ArgAction::Set)]
    pub(crate) ipv6: bool,
    /// Drop TCP that a privileged application writes past capture, by raw and packet sockets or by forwarding. The only part
    /// of capture that sees every packet.
    #[arg(long, env = "EGRESS_GUARD", default_value_t = false, action = clap::ArgAction::Set, num_args = 0..=1, default_missing_value = "true")]
    pub(crate) egress_guard: bool,
    /// Executables whose connections to pods are health probes and reach them as they are; empty for none.
    #[arg(
        long,
        env = "CULVERT_PROBE_PROCESSES",
        value_delimiter = ',',
        default_value = "kubelet,k3s,kubelite"
    )]
    pub(crate) probe_processes: Vec<String>,
    /// The host's network namespace, in which those processes run; by default that of process 1.
    #[arg(long, env = "CULVERT_HOST_NETNS", value_name = "FILE")]
    pub(crate) host_netns: Option<PathBuf>,
    #[command(flatten)]
    pub(crate) limits: LimitArgs,
    /// Form of the log.
    #[arg(long, env = "LOG_FORMAT", value_enum, default_value_t)]
    pub(crate) log_format: LogFormat,
    /// What is logged, such as `info` or `info,access=debug`.
    #[arg(long, env = "RUST_LOG", default_value = "info")]
    pub(crate) log: String,
}

/// How two pods of one node are connected.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum SameNodeTransport {
    /// In a tunnel, as any two pods.
    #[default]
    Hbone,
    /// Over plain TCP to the HBONE port.
    Direct,
}

impl From<SameNodeTransport> for tunnel::SameNode {
    fn from(transport: SameNodeTransport) -> Self {
        match transport {
            SameNodeTransport::Hbone => Self::Hbone,
            SameNodeTransport::Direct => Self::Direct,
        }
    }
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
    #[arg(long, env = "CULVERT_RUN_DIR", default_value = "/run/culvert")]
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
