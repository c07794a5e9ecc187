//! An Envoy that is taken out of service while requests run: it says GOAWAY, closes its listeners, ends.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::{Context as _, Result, anyhow, ensure};
use harness::{Http, Pod, eventually};
use interop_tests::{LIMIT, World};

/// Clients at once, to each address.
const CLIENTS: usize = 3;
/// Requests on one connection, at most; so that there are always new ones.
const EACH: usize = 20;
/// Requests that must have been answered in each phase.
const AT_LEAST: usize = 100;

/// Asks until it is told to stop. A connection on which the server says that it closes is not used again, as HTTP wants it;
/// anything but an answer fails.
fn ask(pod: &Pod, to: SocketAddr, done: &AtomicBool, answered: &AtomicUsize) -> Result<()> {
    while !done.load(Ordering::Relaxed) {
        let mut http: Http = pod.open_http(to)?;
        for turn in 0..EACH {
            let reply = http.get("/drain").with_context(|| format!("request {turn} of a connection"))?;
            ensure!(reply.status == 200, "{reply:?}");
            answered.fetch_add(1, Ordering::Relaxed);
            if reply.closes || done.load(Ordering::Relaxed) {
                break;
            }
        }
    }
    Ok(())
}

#[test]
fn no_request_fails_while_a_waypoint_is_drained_and_stopped() -> Result<()> {
    let world = World::with_waypoint(true)?;
    world.tell(|| {
        let mut first = world.start_waypoint(&world.pods.gate, 100)?;
        let second = world.start_waypoint(&world.pods.spare, 100)?;
        let (done, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
        let client = &world.pods.client;
        let (done, answered) = (&done, &answered);
        let total = std::thread::scope(|scope| -> Result<()> {
            let clients: Vec<_> = world
                .web()
                .into_iter()
                .flat_map(|to| std::iter::repeat_n(to, CLIENTS))
                .map(|to| {
                    scope.spawn(move || ask(client, to, done, answered).with_context(|| format!("{to}")))
                })
                .collect();
            let go_on = |what: &str| -> Result<()> {
                let goal = answered.load(Ordering::Relaxed) + AT_LEAST;
                let enough = || {
                    let ended = clients.iter().any(std::thread::ScopedJoinHandle::is_finished);
                    (ended || answered.load(Ordering::Relaxed) >= goal).then_some(())
                };
                eventually(&format!("answers {what}"), LIMIT, enough)
            };
            let mut phases = || -> Result<()> {
                go_on("from both")?;
                first.wait_stat("http.connect_terminate.downstream_rq_total", |count| count > 0)?;
                first.drain()?;
                go_on("while the first drains")?;
                // The mesh is not told: that the first is going is known from what it says itself.
                first.wait_stat("http.connect_terminate.downstream_cx_drain_close", |count| count > 0)?;
                first.wait_stat("http.connect_terminate.downstream_cx_active", |tunnels| tunnels == 0)?;
                go_on("from the second alone")?;
                first.stop()?;
                go_on("after the first has ended")
            };
            let phases = phases();
            done.store(true, Ordering::Relaxed);
            let mut joined =
                clients.into_iter().map(|c| c.join().map_err(|_| anyhow!("a client panicked"))?);
            joined.try_for_each(|outcome| outcome).and(phases)
        });
        total?;
        ensure!(second.stat("http.connect_terminate.downstream_rq_total")? > 0);
        println!("{} requests answered, none failed", answered.load(Ordering::Relaxed));
        Ok(())
    })
}
