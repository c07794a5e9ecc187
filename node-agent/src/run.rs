//! `culvert run`: makes every room, joins them, and waits for the end.
//!
//! Whatever can be wrong with configuration, privileges, kernel or ports is found before a pod is touched. On SIGTERM or
//! Ctrl-C the process ends; its pods stay captured, and refused, until the next agent takes them over. An agent that has
//! handed its pods over to the next one serves what it has accepted, and ends with that.

use std::collections::HashMap;
use std::io;
use std::num::NonZeroUsize;
use std::os::fd::{AsFd as _, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use control::ca::LocalCa;
use control::file::{self, FileSource};
use mesh::Store;
use prometheus_client::registry::Registry;
use redirect::{Listeners, NodeCapture, NodeGuard, Role};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;
use tokio::task::JoinSet;
use tracing_subscriber::EnvFilter;
use tunnel::Tunnel;

use crate::certificates::Certificates;
use crate::cli::RunArgs;
use crate::enrollment::{self, Decisions, Enroller, EnrollmentMetrics, Parts, PodDefaults, Records};
use crate::handover::{ADMIN, CNI, Claim, Estate, HANDOVER, Holdings, METRICS, Named, READINESS};
use crate::lock::InstanceLock;
use crate::readiness::Readiness;
use crate::{admin, admin_socket, cni_server, kubelet, logging, metrics, unix_server};

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
    let place = &args.place;
    let mut claim = Claim::make(&place.run_dir, &place.bpffs, args.take_over).await?;
    match linux::limits::raise_descriptors() {
        Ok(limit) => tracing::info!(limit, "descriptors that the agent may hold"),
        Err(error) => tracing::warn!(%error, "the limit of descriptors stays as it is"),
    }
    // What ends when the pods are handed over.
    let mut background = JoinSet::new();
    let metrics_port = admin::bind("metrics", args.metrics_address, claim.socket(METRICS)).await?;
    let readiness_port = admin::bind("readiness", args.readiness_address, claim.socket(READINESS)).await?;
    let ports = [duplicate(&metrics_port)?, duplicate(&readiness_port)?];
    let readiness = Readiness::default();
    let pods_pending = readiness.wait_for("capture of the pods present at the start");
    background.spawn(admin::serve_readiness(readiness_port, readiness));

    let mut registry = Registry::default();
    metrics::register_process(&mut registry, logging.dropped.clone());
    let store = Arc::new(Store::new());
    let certificates = certificates(&args.mesh, &mut registry)?;
    let (enrollments, wanted) = watch::channel(Vec::new());
    let source = FileSource::watch(&args.mesh, Some(Arc::clone(&store)), enrollments)?;
    metrics::register_file(&mut registry, Arc::clone(source.counters()));

    let node = Arc::new(NodeCapture::open(&place.bpffs)?);
    redirect::egress::prepare(&node, args.egress_guard)?;
    let search = kubelet_search(args);
    let tunnel =
        Arc::new(Tunnel::new(tunnel_config(args), Arc::clone(&store), certificates, None, &mut registry)?);
    let events = node.take_events();
    let enroller = Arc::new(Enroller::new(Parts {
        node_guard: NodeGuard::new(&node)?,
        node: Arc::clone(&node),
        bpffs: place.bpffs.clone(),
        tunnel: Arc::clone(&tunnel),
        store,
        records: Records::open(&place.run_dir)?,
        proc: place.proc.clone(),
        metrics: EnrollmentMetrics::register(&mut registry),
        defaults: PodDefaults { dns: args.dns_capture, guard: args.egress_guard },
        inherited: inherited(claim.pods()),
    }));
    registry.register_collector(Box::new(Decisions(Arc::clone(&enroller))));
    background.spawn(admin::serve_metrics(metrics_port, Arc::new(registry)));

    let taken = enrollment::inherit(&enroller, &wanted).await;
    let sockets = [CNI, ADMIN, HANDOVER].map(|name| claim.socket(name));
    let lock = tokio::task::spawn_blocking(move || claim.confirm(taken)).await?;
    let lock = lock.context("the pods stay with the agent before this one")?;
    // From here on this agent alone changes what is captured.
    background.spawn(async move {
        kubelet::follow(node, search).await;
        Ok(())
    });
    if let Some(events) = events {
        let enroller = Arc::clone(&enroller);
        background.spawn(async move {
            enrollment::follow_events(enroller, events).await;
            Ok(())
        });
    }
    tokio::spawn(enrollment::run(Arc::clone(&enroller), wanted, pods_pending));
    tokio::spawn(enrollment::watch(Arc::clone(&enroller)));
    let estate = hand_out(args, enroller, lock, ports, sockets)?;
    tracing::info!(node = args.node, version = env!("CARGO_PKG_VERSION"), "agent started");

    tokio::select! {
        told = until_told() => {
            told?;
            tracing::info!("agent ends; captured pods are refused until the next one starts");
        }
        () = estate.given() => {
            background.shutdown().await;
            drain(&tunnel, Duration::from_secs(args.drain_limit)).await?;
        }
    }
    Ok(())
}

/// Listens for the plugin, the command line and the next agent, with the sockets of the agent before this one if there are any.
fn hand_out(
    args: &RunArgs,
    enroller: Arc<Enroller>,
    lock: InstanceLock,
    [metrics, readiness]: [OwnedFd; 2],
    [cni, admin, handover]: [Option<OwnedFd>; 3],
) -> anyhow::Result<Arc<Estate>> {
    let (runtime, run_dir) = (tokio::runtime::Handle::current(), &args.place.run_dir);
    let admin = admin_socket::start(run_dir, admin, Arc::clone(&enroller), runtime.clone())?;
    let cni = cni_server::start(run_dir, cni, Arc::clone(&enroller), runtime)?;
    let path = run_dir.join(format!("{HANDOVER}.sock"));
    let listener = unix_server::listen(&path, "the next agent", handover)?;
    let holdings = Holdings { lock, cni, admin, metrics, readiness };
    Ok(Estate::open(listener, args.place.bpffs.clone(), enroller, holdings)?)
}

fn duplicate(listener: &TcpListener) -> io::Result<OwnedFd> {
    listener.as_fd().try_clone_to_owned()
}

/// The listeners that another agent hands over. What this release cannot use, it makes anew; the other agent serves the
/// connections that wait there.
fn inherited(pods: HashMap<u64, Vec<Named>>) -> HashMap<u64, Listeners> {
    let usable = pods.into_iter().filter_map(|(cookie, sockets)| {
        let known = sockets.into_iter().filter_map(|(name, socket)| Some((Role::named(&name)?, socket)));
        match Listeners::inherit(known.collect()) {
            Ok(listeners) => Some((cookie, listeners)),
            Err(error) => {
                tracing::warn!(cookie, %error, "listeners of the agent before this one are made anew");
                None
            }
        }
    });
    usable.collect()
}

/// Serves what is open, after everything else was handed over.
async fn drain(tunnel: &Tunnel, limit: Duration) -> anyhow::Result<()> {
    const PERIOD: Duration = Duration::from_millis(200);
    let mut terminate = signal(SignalKind::terminate())?;
    let deadline = tokio::time::Instant::now() + limit;
    loop {
        let open = tunnel.connections().len();
        if tunnel.is_idle() {
            tracing::info!("agent ends; all it had accepted is served");
            return Ok(());
        }
        tokio::select! {
            () = tokio::time::sleep_until(deadline) => {
                tracing::warn!(open, "agent ends; connections were open for longer than --drain-limit allows");
                return Ok(());
            }
            _ = terminate.recv() => tracing::info!(open, "told to end, which it does with the last open connection"),
            interrupted = tokio::signal::ctrl_c() => return Ok(interrupted?),
            () = tokio::time::sleep(PERIOD) => {}
        }
    }
}

/// The local certificate authority that the mesh file names.
fn certificates(mesh: &Path, registry: &mut Registry) -> anyhow::Result<Arc<Certificates>> {
    let parsed = file::load(mesh)?;
    let ca = parsed.ca.with_context(|| {
        format!(
            "{} names no certificate authority; add `ca: {{dir: /var/lib/culvert/ca}}` to it",
            mesh.display()
        )
    })?;
    let authority = LocalCa::open_or_create(&ca.dir, &parsed.trust_domain)?;
    Ok(Arc::new(Certificates::new(Arc::new(authority), ca.ttl, registry)))
}

fn kubelet_search(args: &RunArgs) -> kubelet::Search {
    kubelet::Search {
        proc: args.place.proc.clone(),
        netns: args.host_netns.clone().unwrap_or_else(|| args.place.proc.join("1/ns/net")),
        names: args.probe_processes.clone(),
    }
}

fn tunnel_config(args: &RunArgs) -> tunnel::Config {
    let mut config = tunnel::Config {
        network: Arc::from(args.network.as_str()),
        same_node: args.same_node_transport.into(),
        dns: tunnel::DnsConfig { cluster_domain: Arc::from(args.cluster_domain.as_str()), ipv6: args.ipv6 },
        ..tunnel::Config::default()
    };
    config.pool.max_streams = args.tunnel_streams.get();
    config.pool.connections = args.tunnels_per_peer.get();
    if let Some(workers) = NonZeroUsize::new(args.workers) {
        config.workers = workers;
    }
    args.limits.apply(config)
}

async fn until_told() -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        _ = terminate.recv() => {}
        interrupted = tokio::signal::ctrl_c() => interrupted?,
    }
    Ok(())
}
