//! The agent and a control plane: a push of a large mesh, a full resend and a stream of changes, each under load.
//!
//! Two pods of one node talk through the agent's tunnel, so that every request passes the agent twice and both ends of the
//! tunnel are in the process that takes the mesh in.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::Result;
use harness::mesh_file::{Enroll, Workload};
use harness::{App, ControlPlane, Http, MeshFile, Pod, Run, Wire};

use super::agent::{self, Cpus, On, Started};
use super::load::Load;
use crate::figures::Figures;
use crate::process::Process;

/// How large a mesh is.
#[derive(Clone, Copy, Debug)]
pub(super) struct Size {
    pub(super) workloads: u32,
    pub(super) services: u32,
}

/// Most seconds of CPU until a push is applied and acknowledged.
const APPLIED: f64 = 2.0;
/// Most MiB with the large mesh.
const RSS: f64 = 220.0;
/// Most milliseconds by which the 99th percentile may rise.
const RISE: f64 = 1.0;
/// Changes a second, and the most of one core that they may take.
const CHANGES: u32 = 1_000;
const SHARE: f64 = 15.0;

const PORT: u16 = 8080;
const CONNECTIONS: usize = 10;
/// How long the load is listened to without anything else.
const QUIET: Duration = Duration::from_secs(5);
/// What is listened to after something was acknowledged: the judging and the taking apart of what is old come then.
const AFTER: Duration = Duration::from_secs(1);
const CHURN: Duration = Duration::from_secs(10);
const SETTLED: Duration = Duration::from_secs(15);

/// Fields drop in order: processes before the namespaces that they are in.
struct World {
    plane: ControlPlane,
    started: Started,
    client: Pod,
    server: Pod,
    _app: App,
}

impl World {
    fn new(run: &Arc<Run>, cpus: &Cpus) -> Result<Self> {
        let wire = Wire::new(run)?;
        let (node, host) = (wire.add_node("node")?, wire.add_host("istiod")?);
        let (client, server) = (node.add_plain_pod("client", "demo")?, node.add_plain_pod("server", "demo")?);
        let app = server.serve_http(PORT)?;
        let mut mesh = MeshFile::with_ca(&run.dir().join("ca"));
        mesh.workloads = vec![Workload::of_pod(&client), Workload::of_pod(&server)];
        // On the CPU that it shares with both ends of the load, its work must not be what the load waits for.
        let plane = cpus.behind(|| ControlPlane::start(run, &host, &mesh))?;
        // The file names the pods and the authority alone.
        mesh.workloads.clear();
        mesh.enroll = [&client, &server].map(Enroll::running).into();
        let path: PathBuf = run.dir().join("pods.yaml");
        mesh.write(&path)?;
        let (address, roots) = (format!("https://{}", plane.address()), plane.roots());
        let roots = roots.display().to_string();
        let flags = [
            ("--xds-address", address.as_str()),
            ("--xds-root-ca", &roots),
            ("--auth-token", "a-token"),
            ("--pod-name", "culvert-bench"),
            ("--pod-namespace", "istio-system"),
            ("--instance-ip", "198.51.100.1"),
        ];
        let flags: Vec<&str> = flags.iter().flat_map(|(name, value)| [*name, *value]).collect();
        let started = agent::start(On::One(cpus), &node, &path, &flags)?;
        Ok(Self { plane, started, client, server, _app: app })
    }

    fn load(&self) -> Result<Load> {
        let to = std::net::SocketAddr::from((self.server.ipv4(), PORT));
        let connections = (0..CONNECTIONS).map(|_| {
            let mut http = self.client.open_http(to)?;
            http.get("/")?;
            Ok(http)
        });
        Ok(Load::start(connections.collect::<Result<Vec<Http>>>()?))
    }
}

/// What happened while something was done.
struct Event {
    cpu: Duration,
    wall: Duration,
    peak: f64,
    p99: f64,
}

pub(super) fn measure(
    run: &Arc<Run>,
    cpus: &Cpus,
    size: Size,
    resends: usize,
    figures: &mut Figures,
) -> Result<()> {
    println!(
        "\nThe agent and a control plane: {} workloads, {} services; 500 requests/s meanwhile",
        size.workloads, size.services
    );
    let mut world = World::new(run, cpus)?;
    let (load, process) = (world.load()?, world.started.process);
    let quiet = listen(&load, QUIET);
    figures.note("p99 of requests without a change", quiet, "ms");
    let push = format!("fill {} {}", size.workloads, size.services);
    let event = watch(process, &load, || world.plane.tell(&push).and_then(|()| world.plane.tell("synced")))?;
    figures.at_most("one push of all: CPU time of the agent", event.cpu.as_secs_f64(), APPLIED, "s");
    figures.note("one push of all: until it was acknowledged", event.wall.as_secs_f64(), "s");
    figures.at_most("one push of all: memory at its peak", event.peak, RSS, "MiB");
    figures.at_most("one push of all: rise of p99", event.p99 - quiet, RISE, "ms");
    std::thread::sleep(SETTLED);
    figures.at_most("afterwards: memory", process.rss()?, RSS, "MiB");
    for _ in 0..resends {
        let quiet = listen(&load, QUIET);
        let event =
            watch(process, &load, || world.plane.tell("resend").and_then(|()| world.plane.tell("synced")))?;
        figures.at_most("a full resend: rise of p99", event.p99 - quiet, RISE, "ms");
        figures.note("a full resend: CPU time of the agent", event.cpu.as_secs_f64(), "s");
        figures.at_most("a full resend: memory at its peak", event.peak, RSS, "MiB");
    }
    churn(&mut world, process, &load, figures)?;
    load.finish()?;
    world.started.agent.stop()?;
    Ok(())
}

/// The share of one core that changes take, beside what the load takes.
fn churn(world: &mut World, process: Process, load: &Load, figures: &mut Figures) -> Result<()> {
    let before = share(process, CHURN)?;
    world.plane.tell(&format!("churn {CHANGES}"))?;
    std::thread::sleep(AFTER);
    let begin = Instant::now();
    let with = share(process, CHURN)?;
    let p99 = load.quantile(begin, Instant::now(), 0.99);
    world.plane.tell("churn 0")?;
    figures.at_most(&format!("{CHANGES} changes/s of endpoints: of one core"), with - before, SHARE, "%");
    figures.note("the load itself: of one core", before, "%");
    figures.note("p99 of requests meanwhile", p99, "ms");
    Ok(())
}

fn share(process: Process, time: Duration) -> Result<f64> {
    let (before, begin) = (process.time()?, Instant::now());
    std::thread::sleep(time);
    Ok((process.time()? - before).as_secs_f64() / begin.elapsed().as_secs_f64() * 100.0)
}

fn listen(load: &Load, time: Duration) -> f64 {
    let begin = Instant::now();
    std::thread::sleep(time);
    load.quantile(begin, Instant::now(), 0.99)
}

fn watch(process: Process, load: &Load, act: impl FnOnce() -> Result<()>) -> Result<Event> {
    process.forget_peak()?;
    let (before, begin) = (process.time()?, Instant::now());
    act()?;
    let wall = begin.elapsed();
    std::thread::sleep(AFTER);
    let cpu = process.time()?.saturating_sub(before);
    Ok(Event { cpu, wall, peak: process.peak()?, p99: load.quantile(begin, Instant::now(), 0.99) })
}
