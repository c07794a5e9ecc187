//! A service goes on while its endpoints die: whoever connects to it is led to one that lives.

use std::net::SocketAddr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Instant;

use anyhow::{Context as _, Result, ensure};
use harness::mesh_file::{Service, Workload};
use harness::{Attempt, Pod};
use netns_tests::{Bare, HTTP, LIMIT, SERVICE, World, ips, lock, metric, metric_sum};

const TRIO: [&str; 2] = ["10.96.0.30", "2001:db8:96::30"];
/// Clients at once.
const CLIENTS: usize = 3;
/// Requests that must be begun and answered after an endpoint died, by all clients together.
const ENOUGH: usize = 40;

/// `trio`: an endpoint on each node that is in the mesh, and one that is not.
fn world() -> Result<World> {
    let mut bare = Bare::new()?;
    let trio = Service::new("trio", "demo", &ips(TRIO), &[(SERVICE, HTTP)]);
    for workload in &mut bare.mesh.workloads {
        if ["neighbour", "server"].contains(&workload.name.as_str()) {
            workload.services.insert(trio.key(), trio.ports.clone());
        }
    }
    let plain = Workload::of_pod(&bare.plain).plain().serving(&trio);
    bare.mesh.workloads.push(plain);
    bare.mesh.services.push(trio);
    bare.enrol()
}

/// Requests without a pause from several clients, until they are told to stop.
struct Traffic<'a> {
    pod: &'a Pod,
    stop: AtomicBool,
    answered: Mutex<Vec<(Instant, String)>>,
    /// When it was begun, and how it went.
    lost: Mutex<Vec<(Instant, String)>>,
    next: AtomicUsize,
}

impl Traffic<'_> {
    fn run(&self) -> Result<()> {
        let targets = ips(TRIO).map(|ip| SocketAddr::new(ip, SERVICE));
        while !self.stop.load(Ordering::Relaxed) {
            let turn = self.next.fetch_add(1, Ordering::Relaxed);
            let target = *targets.get(turn % 2).context("two families")?;
            let begun = Instant::now();
            match self.pod.attempt(target, "/")? {
                Attempt::Answered(reply) if reply.status == 200 => {
                    self.answered().push((begun, reply.field("app")));
                }
                other => {
                    lock(&self.lost).push((begun, format!("{target}: {other:?}")));
                }
            }
        }
        Ok(())
    }

    fn answered(&self) -> std::sync::MutexGuard<'_, Vec<(Instant, String)>> {
        lock(&self.answered)
    }

    /// Waits until enough requests that were begun after `since` were answered.
    fn goes_on(&self, since: Instant) -> Result<Vec<String>> {
        harness::eventually("requests to be answered", 3 * LIMIT, || {
            let by = self
                .answered()
                .iter()
                .filter(|(begun, _)| *begun > since)
                .map(|(_, by)| by.clone())
                .collect::<Vec<_>>();
            (by.len() >= ENOUGH).then_some(by)
        })
    }
}

/// Runs `change` among traffic, and returns who answered after it. No request that was begun after the change may be lost,
/// and before it none but those under way.
fn among_traffic(pod: &Pod, change: impl FnOnce() -> Result<()>) -> Result<Vec<String>> {
    let traffic = Traffic {
        pod,
        stop: AtomicBool::new(false),
        answered: Mutex::default(),
        lost: Mutex::default(),
        next: AtomicUsize::new(0),
    };
    std::thread::scope(|scope| {
        let clients: Vec<_> = (0..CLIENTS).map(|_| scope.spawn(|| traffic.run())).collect();
        let watched = || -> Result<(Instant, Vec<String>)> {
            traffic.goes_on(Instant::now())?;
            change()?;
            let changed = Instant::now();
            Ok((changed, traffic.goes_on(changed)?))
        };
        let watched = watched();
        traffic.stop.store(true, Ordering::Relaxed);
        for client in clients {
            client.join().map_err(|_| anyhow::anyhow!("a client panicked"))??;
        }
        let (changed, by) = watched?;
        let lost = lock(&traffic.lost);
        let (after, before): (Vec<_>, Vec<_>) = lost.iter().partition(|(begun, _)| *begun > changed);
        ensure!(after.is_empty(), "requests begun after the change were lost: {after:?}");
        ensure!(before.len() <= CLIENTS, "more requests were lost than were under way: {before:?}");
        Ok(by)
    })
}

fn retried(world: &World, outcome: &str) -> Result<f64> {
    metric(&world.agent1, "culvert_connect_retries_total", &[("outcome", outcome)])
}

#[test]
fn a_service_goes_on_when_the_application_of_an_endpoint_dies() -> Result<()> {
    let mut world = world()?;
    let server = world.apps.remove(2);
    let pid = server.pid();
    ensure!(pid != 0);
    let by = among_traffic(&world.client, move || {
        drop(server);
        Ok(())
    })?;
    ensure!(by.iter().all(|app| app == "neighbour" || app == "plain"), "{by:?}");
    ensure!(retried(&world, "connected")? > 0.0, "the dead endpoint was never drawn");
    // Each attempt was told of as what it was, by both nodes.
    world.agent1.wait_for_log(
        &["connection complete", "dst.workload=\"server\"", "503 Service Unavailable"],
        LIMIT,
    )?;
    world
        .agent2
        .wait_for_log(&["connection complete", "dst.workload=\"server\"", "Connection refused"], LIMIT)?;
    let failed = [("reporter", "source"), ("destination_workload", "server"), ("response_flags", "CONNECT")];
    ensure!(metric_sum(&world.agent1, "istio_tcp_connections_failed_total", &failed)? > 0.0);
    Ok(())
}

#[test]
fn a_service_goes_on_when_the_plain_endpoint_dies() -> Result<()> {
    let mut world = world()?;
    let plain = world.apps.remove(3);
    let by = among_traffic(&world.client, move || {
        drop(plain);
        Ok(())
    })?;
    ensure!(by.iter().all(|app| app == "neighbour" || app == "server"), "{by:?}");
    ensure!(retried(&world, "connected")? > 0.0, "the dead endpoint was never drawn");
    Ok(())
}

#[test]
fn a_service_goes_on_when_an_endpoint_is_gone_from_the_network() -> Result<()> {
    let world = world()?;
    let began = Instant::now();
    let by = among_traffic(&world.client, || {
        // Its end of the wire goes down: what is sent there is answered by nobody, tunnels that stood included.
        let netns = world.server.netns().file_name().context("a name")?.to_string_lossy().into_owned();
        harness::command::ip(&format!("-n {netns} link set eth0 down")).map(drop)
    })?;
    println!("{} requests answered; {:?} in all", by.len(), began.elapsed());
    ensure!(by.iter().all(|app| app == "neighbour" || app == "plain"), "{by:?}");
    Ok(())
}

#[test]
fn a_service_goes_on_when_the_agent_of_a_node_dies() -> Result<()> {
    let mut world = world()?;
    let by = among_traffic(&world.client, || world.agent2.kill9())?;
    ensure!(by.iter().all(|app| app == "neighbour" || app == "plain"), "{by:?}");
    Ok(())
}

#[test]
fn a_service_without_a_living_endpoint_is_refused_in_time() -> Result<()> {
    let mut world = world()?;
    world.apps.truncate(1);
    let target = SocketAddr::new(ips(TRIO)[0], SERVICE);
    let attempt = world.client.attempt(target, "/")?;
    ensure!(attempt.is_refused(), "{attempt:?}");
    ensure!(retried(&world, "no_other_endpoint")? == 1.0);
    Ok(())
}
