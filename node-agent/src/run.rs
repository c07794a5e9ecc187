//! `culvert run`: makes every room, joins them, and waits for the end.
//!
//! Whatever can be wrong with configuration, privileges, kernel or ports is found before a pod is touched. On SIGTERM or
//! Ctrl-C the process ends; its pods stay captured, and refused, until the next agent takes them over.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use control::ca::LocalCa;
use control::file::{self, FileSource};
use mesh::Store;
use prometheus_client::registry::Registry;
use redirect::{NodeCapture, NodeGuard};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tracing_subscriber::EnvFilter;
use tunnel::Tunnel;

use crate::certificates::Certificates;
use crate::cli::RunArgs;
use crate::enrollment::{self, Decisions, Enroller, EnrollmentMetrics, Parts, Records};
use crate::lock::InstanceLock;
use crate::readiness::Readiness;
use crate::{admin, admin_socket, cni_server, kubelet, logging, metrics};

/// Threads of everything that is not the data path.
const CONTROL_THREADS: usize = 2;
/// How long control tasks may take to end.
const SHUTDOWN: Duration = Duration::from_secs(2);

/// Runs the agent until it is told to end.
pub(crate) fn run(args: &RunArgs) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&args.log).with_context(|| {
        format!("--log {:?} is not a filter such as `info` or `info,access=debug`", args.log)
    })?;
    let logging = logging::start(args.log_format, filter)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        .enable_all()
        .build()?;
    let outcome = runtime.block_on(serve(args, &logging));
    runtime.shutdown_timeout(SHUTDOWN);
    outcome
}

async fn serve(args: &RunArgs, logging: &logging::Logging) -> anyhow::Result<()> {
    let _lock = InstanceLock::take(&args.place.run_dir)?;
    match linux::limits::raise_descriptors() {
        Ok(limit) => tracing::info!(limit, "descriptors that the agent may hold"),
        Err(error) => tracing::warn!(%error, "the limit of descriptors stays as it is"),
    }
    let metrics_port = admin::bind("metrics", args.metrics_address).await?;
    let readiness_port = admin::bind("readiness", args.readiness_address).await?;
    let readiness = Readiness::default();
    let pods_pending = readiness.wait_for("capture of the pods present at the start");
    tokio::spawn(admin::serve_readiness(readiness_port, readiness));

    let mut registry = Registry::default();
    metrics::register_process(&mut registry, logging.dropped.clone());
    let store = Arc::new(Store::new());
    let certificates = certificates(&args.mesh)?;
    let (enrollments, wanted) = watch::channel(Vec::new());
    let source = FileSource::watch(&args.mesh, Arc::clone(&store), enrollments)?;
    metrics::register_file(&mut registry, Arc::clone(source.counters()));

    let node = Arc::new(NodeCapture::open(&args.place.bpffs)?);
    tokio::spawn(kubelet::follow(Arc::clone(&node), kubelet_search(args)));
    let tunnel = Tunnel::new(tunnel_config(args), Arc::clone(&store), certificates, &mut registry)?;
    let events = node.take_events();
    let enroller = Arc::new(Enroller::new(Parts {
        node_guard: NodeGuard::new(&node)?,
        node,
        bpffs: args.place.bpffs.clone(),
        tunnel: Arc::new(tunnel),
        store,
        records: Records::open(&args.place.run_dir)?,
        proc: args.place.proc.clone(),
        metrics: EnrollmentMetrics::register(&mut registry),
        dns: args.dns_capture,
    }));
    if let Some(events) = events {
        tokio::spawn(enrollment::follow_events(Arc::clone(&enroller), events));
    }
    registry.register_collector(Box::new(Decisions(Arc::clone(&enroller))));
    tokio::spawn(admin::serve_metrics(metrics_port, Arc::new(registry)));
    tokio::spawn(enrollment::run(Arc::clone(&enroller), wanted, pods_pending));
    tokio::spawn(enrollment::watch(Arc::clone(&enroller)));
    let runtime = tokio::runtime::Handle::current();
    admin_socket::start(&args.place.run_dir, Arc::clone(&enroller), runtime.clone())?;
    cni_server::start(&args.place.run_dir, enroller, runtime)?;
    tracing::info!(node = args.node, version = env!("CARGO_PKG_VERSION"), "agent started");

    until_told().await?;
    tracing::info!("agent ends; captured pods are refused until the next one starts");
    Ok(())
}

/// The local certificate authority that the mesh file names.
fn certificates(mesh: &Path) -> anyhow::Result<Arc<Certificates>> {
    let parsed = file::load(mesh)?;
    let ca = parsed.ca.with_context(|| {
        format!(
            "{} names no certificate authority; add `ca: {{dir: /var/lib/culvert/ca}}` to it",
            mesh.display()
        )
    })?;
    let authority = LocalCa::open_or_create(&ca.dir, &parsed.trust_domain)?;
    Ok(Arc::new(Certificates::new(authority, ca.ttl)))
}

fn kubelet_search(args: &RunArgs) -> kubelet::Search {
    kubelet::Search {
        proc: args.place.proc.clone(),
        netns: args.host_netns.clone().unwrap_or_else(|| args.place.proc.join("1/ns/net")),
        names: args.probe_processes.clone(),
    }
}

fn tunnel_config(args: &RunArgs) -> tunnel::Config {
    let mut config =
        tunnel::Config { network: Arc::from(args.network.as_str()), ..tunnel::Config::default() };
    if let Some(workers) = NonZeroUsize::new(args.workers) {
        config.workers = workers;
    }
    config
}

async fn until_told() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = terminate.recv() => {}
        interrupted = tokio::signal::ctrl_c() => interrupted?,
    }
    Ok(())
}
