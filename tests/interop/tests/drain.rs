//! Who takes tunnels is taken out of service while requests run: an Envoy that our agent sends them to, and our agent that an
//! Envoy sends them to. Both say GOAWAY, serve what is there, and end.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use anyhow::{Context as _, Result, anyhow, ensure};
use harness::inside::in_netns;
use harness::{Http, client, eventually};
use interop_tests::config::Ingress;
use interop_tests::{Envoy, HBONE, HTTP, LIMIT, World, identity};

/// Clients at once, to each address.
const CLIENTS: usize = 3;
/// Requests on one connection, at most; so that there are always new ones.
const EACH: usize = 20;
/// Requests that must have been answered in each phase.
const AT_LEAST: usize = 100;

/// How a client connects.
type Connect<'a> = Box<dyn Fn() -> Result<Http> + Send + Sync + 'a>;

/// Goes through phases while clients ask, none of which may fail. A phase calls what it is given to wait for more answers.
/// Returns how many there were.
fn while_asking(
    clients: &[Connect<'_>],
    phases: impl FnOnce(&dyn Fn(&str) -> Result<()>) -> Result<()>,
) -> Result<usize> {
    let (done, answered) = (AtomicBool::new(false), AtomicUsize::new(0));
    let (done, answered) = (&done, &answered);
    std::thread::scope(|scope| {
        let running: Vec<_> =
            clients.iter().map(|connect| scope.spawn(move || ask(connect, done, answered))).collect();
        let go_on = |what: &str| {
            let goal = answered.load(Ordering::Relaxed) + AT_LEAST;
            let enough = || {
                let ended = running.iter().any(std::thread::ScopedJoinHandle::is_finished);
                (ended || answered.load(Ordering::Relaxed) >= goal).then_some(())
            };
            eventually(&format!("answers {what}"), LIMIT, enough)
        };
        let gone_through = phases(&go_on);
        done.store(true, Ordering::Relaxed);
        let mut joined = running.into_iter().map(|c| c.join().map_err(|_| anyhow!("a client panicked"))?);
        joined.try_for_each(|outcome| outcome).and(gone_through)
    })?;
    Ok(answered.load(Ordering::Relaxed))
}

/// Asks until it is told to stop. A connection on which the server says that it closes is not used again, as HTTP wants it;
/// anything but an answer fails.
fn ask(connect: &Connect<'_>, done: &AtomicBool, answered: &AtomicUsize) -> Result<()> {
    while !done.load(Ordering::Relaxed) {
        let mut http = connect()?;
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
    let mut world = World::with_waypoint(true)?;
    world.tell(|world| {
        let mut first = world.start_waypoint(&world.pods.gate, 100)?;
        let second = world.start_waypoint(&world.pods.spare, 100)?;
        let mut clients: Vec<Connect<'_>> = Vec::new();
        for to in world.web().into_iter().flat_map(|to| std::iter::repeat_n(to, CLIENTS)) {
            let client = &world.pods.client;
            clients.push(Box::new(move || client.open_http(to)));
        }
        let gate = SocketAddr::new(world.pods.gate.ipv4().into(), HBONE);
        let answered = while_asking(&clients, |go_on| {
            go_on("from both")?;
            first.wait_stat("http.connect_terminate.downstream_rq_total", |count| count > 0)?;
            first.drain()?;
            go_on("while the first drains")?;
            // The mesh is not told: that the first is going is known from what it says itself.
            first.wait_stat("http.connect_terminate.downstream_cx_drain_close", |count| count > 0)?;
            eventually("its listeners to be closed", LIMIT, || {
                world.pods.gate.connect(gate, client::LIMIT).ok()?.err()
            })?;
            // New tunnels cannot come, and those that were there go when their last stream ends.
            first.wait_stat("http.connect_terminate.downstream_cx_active", |tunnels| tunnels == 0)?;
            go_on("from the second alone")?;
            first.stop()?;
            go_on("after the first has ended")
        })?;
        println!("{answered} requests answered, none failed");
        ensure!(second.stat("http.connect_terminate.downstream_rq_total")? > 0);
        Ok(())
    })
}

#[test]
fn no_request_through_a_gateway_fails_while_our_agent_is_replaced() -> Result<()> {
    let mut world = World::new(|_, _| {})?;
    world.tell(|world| {
        let own = world.credentials("gate")?;
        let (gate, v1) = (&world.pods.gate, &world.pods.v1);
        let on = gate.addresses().map(|ip| SocketAddr::new(ip, 80));
        let routes = vec![("/", SocketAddr::new(v1.ipv4().into(), HTTP))];
        let ingress = Ingress { on, own: &own, routes, destinations: vec![identity("v1")] };
        let _envoy = Envoy::start(gate, &ingress.bootstrap())?;
        let mut clients: Vec<Connect<'_>> = Vec::new();
        for to in on.into_iter().flat_map(|to| std::iter::repeat_n(to, CLIENTS)) {
            let outside = &world.outside.netns;
            clients.push(Box::new(move || {
                Http::new(in_netns(outside, || client::connect(to, client::LIMIT))??)
            }));
        }
        let agent = &mut world.agent2;
        let answered = while_asking(&clients, |go_on| {
            go_on("from the first agent")?;
            let mut old = agent.succeed()?;
            agent.wait_for_log(&["handed over; this agent serves"], LIMIT)?;
            agent.wait_ready()?;
            go_on("while both have tunnels")?;
            // Envoy opens nothing more in tunnels that say GOAWAY, so that the old agent has nothing left to do.
            old.wait_exit(LIMIT)?;
            go_on("from the second agent")
        })?;
        println!("{answered} requests answered, none failed");
        Ok(())
    })
}
