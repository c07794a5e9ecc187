//! `culvert run`: makes every room, joins them, and waits for the end.
//!
//! Whatever can be wrong with configuration, privileges, kernel or ports is found before a pod is touched. How it ends is in
//! [`crate::ending`].

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::Context as _;
use redirect::{Events, Listeners, NodeCapture, NodeGuard, Preparation, Role};

use crate::admin_socket::{Respond, Subjects};
use crate::cli::Place;
use crate::config::Config;
use crate::ending::Ending;
use crate::enrollment::{self, Decisions, Enroller, EnrollmentMetrics, Parts, PodDefaults, Records};
use crate::feed::Feed;
use crate::foundation::Foundation;
use crate::handover::{ADMIN, CNI, Claim, Estate, HANDOVER, Holdings, Named};
use crate::install::Installation;
use crate::lock::InstanceLock;
use crate::lookout::Lookout;
use crate::membership::Membership;
use crate::settling::settle_later;
use crate::{admin, admin_socket, cni_server, kubelet, logging, spans, unix_server, zds};

/// Threads of everything that is not the data path, and how much they give way to it. Where a CPU is wanted by both, a quarter is
/// left to them: policies arrive on a busy node, too.
const CONTROL_THREADS: usize = 2;
const CONTROL_NICENESS: i32 = 5;
/// How long a thread of blocking work waits for more of it. A start with many pods needs dozens, and each of them holds memory.
const IDLE_THREAD: Duration = Duration::from_secs(5);
/// How long an agent that takes pods over waits until it knows the mesh. The other one waits for longer.
const TOLD: Duration = Duration::from_secs(20);
/// How long control tasks may take to end.
const SHUTDOWN: Duration = Duration::from_secs(2);

/// Runs the agent until it is told to end.
pub(crate) fn run(config: &Config) -> anyhow::Result<()> {
    linux::signals::accept_termination()?;
    let logging = logging::start(config.process.log_format, &config.process.log)?;
    #[cfg(debug_assertions)]
    crate::wall_clock::follow(&config.process.place.run_dir)?;
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(CONTROL_THREADS)
        .thread_name("control")
        .on_thread_start(give_way)
        .thread_keep_alive(IDLE_THREAD)
        .enable_all()
        .build()?;
    let outcome = match &config.capture.by_others {
        Some(by_others) => runtime.block_on(zds::serve(config, by_others, &logging)),
        None => {
            // Goes on while everything else begins.
            let prepared = std::thread::Builder::new().name("prepare".to_owned()).spawn(Preparation::new)?;
            runtime.block_on(serve(config, &logging, prepared))
        }
    };
    runtime.shutdown_timeout(SHUTDOWN);
    outcome
}

async fn serve(
    config: &Config,
    logging: &logging::Logging,
    prepared: JoinHandle<Preparation>,
) -> anyhow::Result<()> {
    let Config { process, capture, .. } = config;
    let place = &process.place;
    let mut claim = Claim::make(&place.run_dir, &place.bpffs, process.take_over).await?;
    let mut foundation = Foundation::lay(config, logging, |name| claim.socket(name)).await?;
    let ports = foundation.share_ports()?;
    let pods_pending = foundation.readiness.wait_for("capture of the pods present at the start");
    // The kernel looks the programs through while a large mesh file is read.
    let bpffs = place.bpffs.clone();
    let opening = tokio::task::spawn_blocking(move || {
        // A panic has been told.
        NodeCapture::open_with(&bpffs, prepared.join().unwrap_or_default())
    });
    let feed = foundation.feed()?;
    let mut installation = Installation::prepare(config, &foundation.readiness, &mut foundation.registry);
    foundation.serve_readiness();
    make_sysctls_writable();
    let node = Arc::new(opening.await??);
    redirect::egress::prepare(&node, capture.egress_guard)?;
    let tunnel = foundation.tunnel(&feed)?;
    let events = node.take_events();
    let inherited = inherited(claim.pods());
    if !inherited.is_empty() {
        until_told(&feed, &claim).await?;
    }
    let Foundation { readiness, registry, .. } = &mut foundation;
    let membership = Membership::start(config, feed.pods.clone(), readiness, registry).await?;
    let lookout = Arc::new(Lookout::new(give_way).context("a thread to look after pods")?);
    let enroller = Arc::new(Enroller::new(Parts {
        node_guard: NodeGuard::new(&node)?,
        node: Arc::clone(&node),
        bpffs: place.bpffs.clone(),
        tunnel: Arc::clone(&tunnel),
        store: Arc::clone(&feed.store),
        records: Records::open(&place.run_dir)?,
        proc: place.proc.clone(),
        metrics: EnrollmentMetrics::register(registry),
        defaults: PodDefaults { dns: capture.dns, guard: capture.egress_guard },
        inherited,
        wishes: membership.wishes(),
        annotator: membership.annotator(),
        lookout: Arc::clone(&lookout),
    }));
    registry.register_collector(Box::new(Decisions(Arc::clone(&enroller))));
    let certificates = Arc::clone(&feed.certificates);
    let agent = admin::Agent { enroller: Arc::clone(&enroller), tunnel: Arc::clone(&tunnel), certificates };
    let agent: Arc<dyn admin::Node> = Arc::new(agent);
    let registry = foundation.show(&feed, Arc::clone(&agent))?;
    let subjects = Subjects {
        node: agent,
        store: Arc::clone(&feed.store),
        tunnel: Arc::clone(&tunnel),
        levels: logging.levels.clone(),
        events: logging.events.clone(),
        config: serde_json::to_value(&config.effective).context("the configuration")?,
        registry,
        readiness: foundation.readiness.clone(),
        source: feed.source(),
    };

    let taken = enrollment::inherit(&enroller).await;
    let sockets = [CNI, ADMIN, HANDOVER].map(|name| claim.socket(name));
    let lock = tokio::task::spawn_blocking(move || claim.confirm(taken)).await?;
    let lock = lock.context("the pods stay with the agent before this one")?;
    // From here on this agent alone changes what is captured.
    let Foundation { mut background, quit, answers, spans, .. } = foundation;
    let mut kubelet = kubelet::Watch::new(node, kubelet_search(config), lookout);
    kubelet.look().await;
    background.spawn(kubelet.follow());
    if let Some(events) = events {
        background.spawn(follow_events(Arc::clone(&enroller), events));
    }
    background.spawn(membership.keep_list());
    tokio::spawn(enrollment::run(Arc::clone(&enroller), pods_pending));
    tokio::spawn(enrollment::watch(Arc::clone(&enroller)));
    let respond = admin_socket::respond(Arc::clone(&enroller), subjects, tokio::runtime::Handle::current());
    let estate = hand_out(place, Arc::clone(&enroller), Arc::clone(&respond), (lock, ports), sockets)?;
    // It was not set before.
    let _ = answers.set(respond);
    installation.start();
    tracing::info!(node = config.node.name, version = env!("CARGO_PKG_VERSION"), "agent started");
    settle_later();
    let outcome = Ending { process, tunnel, quit, enroller, installation, background }.wait(&estate).await;
    spans::flush(spans).await;
    outcome
}

/// Waits until the mesh is known here: until then nobody serves the pods better than the agent before this one, if that lives.
async fn until_told(feed: &Feed, claim: &Claim) -> anyhow::Result<()> {
    tokio::select! {
        told = feed.told(TOLD) => told.context("the pods stay with the agent before this one"),
        () = claim.bereaved() => {
            tracing::warn!("the agent before this one has ended, so this one goes on before it knows the mesh");
            Ok(())
        }
    }
}

fn give_way() {
    if let Err(error) = linux::scheduling::be_nice(CONTROL_NICENESS) {
        tracing::debug!(%error, "the control plane goes beside the data path, not behind it");
    }
}

async fn follow_events(enroller: Arc<Enroller>, events: Events) -> io::Result<()> {
    enrollment::follow_events(enroller, events).await;
    Ok(())
}

fn make_sysctls_writable() {
    match linux::sysctl::make_writable() {
        Ok(true) => tracing::info!("/proc/sys was read-only and is writable now, in this container"),
        Ok(false) => {}
        Err(error) => tracing::warn!(%error, "/proc/sys stays read-only, so pods cannot be captured"),
    }
}

/// Listens for the plugin, the command line and the next agent, with the sockets of the agent before this one if there are any.
fn hand_out(
    place: &Place,
    enroller: Arc<Enroller>,
    respond: Arc<Respond>,
    (lock, ports): (InstanceLock, Vec<Named>),
    [cni, admin, handover]: [Option<OwnedFd>; 3],
) -> anyhow::Result<Arc<Estate>> {
    let (runtime, run_dir) = (tokio::runtime::Handle::current(), &place.run_dir);
    let admin = admin_socket::start(run_dir, admin, respond)?;
    let cni = cni_server::start(run_dir, cni, Arc::clone(&enroller), runtime)?;
    let path = run_dir.join(format!("{HANDOVER}.sock"));
    let listener = unix_server::listen(&path, "the next agent", handover)?;
    let holdings = Holdings { lock, cni, admin, ports };
    Ok(Estate::open(listener, place.bpffs.clone(), enroller, holdings)?)
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

fn kubelet_search(config: &Config) -> kubelet::Search {
    let (proc, capture) = (&config.process.place.proc, &config.capture);
    kubelet::Search {
        proc: proc.clone(),
        netns: capture.host_netns.clone().unwrap_or_else(|| proc.join("1/ns/net")),
        names: capture.probe_processes.clone(),
    }
}
