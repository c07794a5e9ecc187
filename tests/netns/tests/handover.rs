//! Rows X4 and X7 of the truth table: one agent takes the place of another, or waits for it.

use std::net::{SocketAddr, UdpSocket};
use std::os::fd::AsFd as _;
use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Context as _, Result, ensure};
use cni::protocol::{Command, MAX_MESSAGE, PodName, Request, Response, VERSION};
use harness::mesh_file::Enroll;
use harness::{Agent, Attempt, Node, Pod, eventually};
use linux::fdpass::Connection;
use linux::netns::Netns;
use netns_tests::kernel::{Held, descriptors};
use netns_tests::questions::{question, reply};
use netns_tests::{HTTP, LIMIT, SERVICE, WEB, World, at, ips, mesh_path, until_answered};

/// Upgrades in a row.
const UPGRADES: usize = 3;
/// Attempts of each kind that must have been made during the upgrades; there are thousands on an idle machine.
const AT_LEAST: usize = 30;
const DNS: u16 = 53;
/// What is asked of a new agent's ports.
const PORTS: [(u16, &str); 3] = [(15_000, "/config_dump"), (15_020, "/metrics"), (15_021, "/healthz/ready")];

/// What is tried again and again, and how often it was.
type Trial<'a> = (&'static str, Box<dyn Fn() -> Result<()> + Send + Sync + 'a>);

fn answered(from: &Pod, to: SocketAddr) -> Result<()> {
    match from.attempt(to, "/")? {
        Attempt::Answered(reply) if reply.status == 200 => Ok(()),
        other => anyhow::bail!("{} to {to}: {other:?}", from.name()),
    }
}

/// Asks a resolver outside of the mesh, by way of the agent; nothing that goes over lo may be lost.
fn resolved(from: &Pod, to: SocketAddr) -> Result<()> {
    let bound = if to.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
    let socket = from.inside(|| UdpSocket::bind(bound))??;
    socket.set_read_timeout(Some(LIMIT))?;
    let asked = question("who")?;
    socket.send_to(&asked, to)?;
    let mut buffer = [0; 512];
    let (length, source) = socket.recv_from(&mut buffer).with_context(|| format!("no answer from {to}"))?;
    let expected = reply(&asked, "echo");
    ensure!(source == to && buffer.get(..length) == expected.as_deref(), "an answer of {source}");
    Ok(())
}

fn echo(world: &World) -> Result<[SocketAddr; 2]> {
    let addresses = at(world.outside_ips(), DNS);
    for address in addresses {
        let socket = harness::inside::in_netns(&world.outside.netns, || UdpSocket::bind(address))??;
        std::thread::spawn(move || {
            let mut buffer = [0; 512];
            // Ends with the test's process.
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                let answer = reply(buffer.get(..length).unwrap_or_default(), "echo");
                let _ = socket.send_to(&answer.unwrap_or_default(), from);
            }
        });
    }
    Ok(addresses)
}

#[test]
fn x4_no_attempt_is_refused_while_one_agent_takes_over_from_another() -> Result<()> {
    let mut world = World::new()?;
    let resolvers = echo(&world)?;
    let World { agent1, client, neighbour, server, plain, .. } = &mut world;
    let (client, neighbour, server, plain) = (&*client, &*neighbour, &*server, &*plain);
    let mut trials: Vec<Trial<'_>> = Vec::new();
    for to in at(server.addresses(), HTTP).into_iter().chain(at(ips(WEB), SERVICE)) {
        trials.push(("out, through the tunnel", Box::new(move || answered(client, to))));
    }
    for to in at(neighbour.addresses(), HTTP) {
        trials.push(("in, through the tunnel", Box::new(move || answered(server, to))));
        trials.push(("in, in plaintext", Box::new(move || answered(plain, to))));
        trials.push(("within the node", Box::new(move || answered(client, to))));
    }
    for to in resolvers {
        trials.push(("a name", Box::new(move || resolved(client, to))));
    }

    let done = AtomicBool::new(false);
    let counts = std::thread::scope(|scope| -> Result<Vec<usize>> {
        let runners: Vec<_> = trials
            .iter()
            .map(|(what, trial)| {
                let done = &done;
                scope.spawn(move || -> Result<usize> {
                    let mut count = 0;
                    while !done.load(Ordering::Relaxed) {
                        trial().with_context(|| format!("{what}, attempt {count}"))?;
                        count += 1;
                    }
                    Ok(count)
                })
            })
            .collect();
        let upgraded = (1..=UPGRADES).try_for_each(|turn| upgrade(agent1, client, server, turn));
        done.store(true, Ordering::Relaxed);
        let joined = runners
            .into_iter()
            .map(|runner| runner.join().map_err(|_| anyhow::anyhow!("a trial panicked"))?);
        let counts = joined.collect::<Result<Vec<usize>>>();
        upgraded.and(counts)
    })?;
    for ((what, _), count) in trials.iter().zip(&counts) {
        println!("{what}: {count} attempts during {UPGRADES} upgrades, none failed");
        ensure!(*count >= AT_LEAST, "{what}: {count} attempts only");
    }
    Ok(())
}

/// Starts the next agent, with connections open that the one before it must serve to their end.
fn upgrade(agent: &mut Agent, client: &Pod, server: &Pod, turn: usize) -> Result<()> {
    let mut open = Vec::new();
    for to in at(server.addresses(), HTTP) {
        let mut http = client.open_http(to)?;
        http.get("/before")?;
        open.push(http);
    }
    let mut old = agent.succeed()?;
    eventually(&format!("hand-over {turn}"), LIMIT * 3, || {
        (agent.log_lines(&["handed over; this agent serves"]).len() == turn).then_some(())
    })
    .with_context(|| agent.log())?;
    agent.wait_ready()?;
    // The ports are the new one's, though the old one lives.
    for (port, path) in PORTS {
        let reply = agent.get(port, path)?;
        ensure!(reply.status == 200, "{port}{path}: {reply:?}");
    }
    for http in &mut open {
        http.get("/after")?;
    }
    ensure!(old.is_running(), "the old agent must live as long as its connections");
    drop(open);
    let status = old.wait_exit(LIMIT)?;
    ensure!(status.success(), "the old agent ended with {status}");
    Ok(())
}

#[test]
fn x4_no_request_of_the_plugin_fails_meanwhile() -> Result<()> {
    let mut world = World::new()?;
    let [n1, _] = world.nodes.clone();
    let late = n1.add_plain_pod("late", "demo")?;
    world.mesh.enroll.push(Enroll::by_cni("late", "demo", &n1));
    world.write_mesh()?;
    world.agent1.wait_for_log(&["mesh file applied", "pods=3"], LIMIT)?;
    let netns = Netns::open(late.netns())?;
    let ask = |command: Command| -> Result<()> {
        let request = Request {
            version: VERSION,
            command,
            container_id: late.sandbox().container_id.clone(),
            netns: late.netns().display().to_string(),
            ifname: "eth0".to_owned(),
            pod: Some(PodName { name: "late".into(), namespace: "demo".into(), uid: None }),
            ips: late.addresses().to_vec(),
            annotations: Default::default(),
            network: String::new(),
            valid: Vec::new(),
        };
        let connection = Connection::connect(&n1.cni_socket(), LIMIT)?;
        connection.send(&request.encode()?, &[netns.as_fd()])?;
        let answer = Response::decode(&connection.recv(MAX_MESSAGE)?.0)?.into_result()?;
        answer.map(drop).map_err(|failure| anyhow::anyhow!("{command:?}: {failure:?}"))
    };
    let done = AtomicBool::new(false);
    let cycles = std::thread::scope(|scope| -> Result<usize> {
        let plugin = scope.spawn(|| -> Result<usize> {
            let mut cycles = 0;
            while !done.load(Ordering::Relaxed) {
                ask(Command::Add).with_context(|| format!("cycle {cycles}"))?;
                ask(Command::Check).with_context(|| format!("cycle {cycles}"))?;
                ask(Command::Del).with_context(|| format!("cycle {cycles}"))?;
                cycles += 1;
            }
            Ok(cycles)
        });
        let upgraded = (1..=UPGRADES)
            .try_for_each(|turn| upgrade(&mut world.agent1, &world.client, &world.server, turn));
        done.store(true, Ordering::Relaxed);
        let cycles = plugin.join().map_err(|_| anyhow::anyhow!("the plugin panicked"))?;
        upgraded.and(cycles)
    })?;
    println!("{cycles} cycles of ADD, CHECK and DEL during {UPGRADES} upgrades, none failed");
    ensure!(cycles >= UPGRADES, "{cycles} cycles only");
    eventually("nothing of the pod to be left", LIMIT, || {
        Held::of(&late).is_ok_and(|held| held.is_nothing()).then_some(())
    })
}

/// A successor as far as its first words.
struct Asking {
    connection: Connection,
}

impl Asking {
    fn new(node: &Node, bpffs: &std::path::Path) -> Result<Self> {
        let connection = Connection::connect(&node.agent_dir().join("handover.sock"), LIMIT)?;
        let bpffs = bpffs.display();
        let ask = format!(r#"{{"version":1,"say":{{"bpffs":"{bpffs}","release":"test"}}}}"#);
        connection.send(ask.as_bytes(), &[])?;
        Ok(Self { connection })
    }

    /// The next message, and how many descriptors came with it.
    fn hear(&self) -> Result<(String, usize)> {
        let (bytes, descriptors) = self.connection.recv(16 * 1024)?;
        Ok((String::from_utf8(bytes)?, descriptors.len()))
    }
}

#[test]
fn x4_a_successor_that_fails_midway_changes_nothing() -> Result<()> {
    let mut world = World::new()?;
    let [n1, _] = world.nodes.clone();
    let before = descriptors(&world.agent1)?.len();
    for (turn, how) in ["silently", "with garbage", "after the wrong word"].into_iter().enumerate() {
        let asking = Asking::new(&n1, &n1.bpffs())?;
        let mut sockets = 0;
        loop {
            let (said, brought) = asking.hear()?;
            sockets += brought;
            if said.contains("end") {
                break;
            }
        }
        ensure!(sockets >= 6 + 2 * 3, "{sockets} descriptors of the node and two pods");
        // While it is being given to, the agent goes on serving.
        for to in at(world.server.addresses(), HTTP) {
            answered(&world.client, to)?;
        }
        let second = Asking::new(&n1, &n1.bpffs())?;
        ensure!(second.hear()?.0.contains("taking over just now"), "two successors at once");
        match how {
            "with garbage" => asking.connection.send(b"\xff", &[])?,
            "after the wrong word" => asking.connection.send(br#"{"version":1,"say":{"never":0}}"#, &[])?,
            _ => {}
        }
        drop(asking);
        let told = || world.agent1.log_lines(&["not handed over, this agent goes on"]).len() > turn;
        eventually("the agent to go on", LIMIT, || told().then_some(()))?;
        world.agent1.get(15021, "/healthz/ready")?;
    }
    // It enrols and releases as before.
    world.mesh.enroll.retain(|entry| entry.name != "neighbour");
    world.write_mesh()?;
    world.agent1.wait_for_log(&["pod released", "demo/neighbour"], LIMIT)?;
    world.mesh.enroll.push(Enroll::running(&world.neighbour));
    world.write_mesh()?;
    eventually("the pod to be enrolled again", LIMIT, || {
        (world.agent1.log_lines(&["pod enrolled", "demo/neighbour"]).len() == 2).then_some(())
    })?;
    for to in at(world.neighbour.addresses(), HTTP) {
        answered(&world.plain, to)?;
    }
    eventually("the descriptors to be given back", LIMIT, || {
        // Pooled tunnels may have come.
        descriptors(&world.agent1).is_ok_and(|now| now.len() <= before + 8).then_some(())
    })?;
    Ok(())
}

#[test]
fn x7_an_agent_of_another_installation_gets_nothing() -> Result<()> {
    let world = World::new()?;
    let [n1, _] = &world.nodes;
    let asking = Asking::new(n1, &n1.bpffs().join("other"))?;
    let (said, sockets) = asking.hear()?;
    ensure!(said.contains("two installations") && sockets == 0, "{said}, with {sockets} descriptors");
    let connection = Connection::connect(&n1.agent_dir().join("handover.sock"), LIMIT)?;
    connection.send(br#"{"version":99,"say":{}}"#, &[])?;
    ensure!(connection.recv(64)?.0.is_empty(), "an unknown version must not be answered with anything");
    for to in at(world.server.addresses(), HTTP) {
        answered(&world.client, to)?;
    }
    Ok(())
}

#[test]
fn x7_a_second_agent_says_so_and_waits() -> Result<()> {
    let mut world = World::new()?;
    let [n1, _] = world.nodes.clone();
    let mut second = Agent::spawn(&n1, &mesh_path(&world.run, &n1), &[])?;
    let first = world.agent1.pid().context("the first agent runs")?;
    second.wait_for_log(&["another agent runs here", &first.to_string()], LIMIT)?;
    for to in at(world.server.addresses(), HTTP) {
        answered(&world.client, to)?;
    }
    ensure!(second.is_running() && world.agent1.is_running(), "neither of the two ends");

    world.agent1.kill9()?;
    second.wait_ready()?;
    for to in at(world.server.addresses(), HTTP) {
        until_answered(&world.client, to)?;
    }
    // What waits takes over whole, and releases what it is to release.
    world.mesh.enroll.retain(|entry| entry.name != "client");
    world.write_mesh()?;
    eventually("the pod to be released", LIMIT, || {
        Held::of(&world.client).is_ok_and(|held| held.is_nothing()).then_some(())
    })?;
    std::mem::swap(&mut world.agent1, &mut second);
    Ok(())
}

#[test]
fn x7_a_second_agent_that_waits_ends_when_it_is_told() -> Result<()> {
    let world = World::new()?;
    let [n1, _] = &world.nodes;
    let mut second = Agent::spawn(n1, &mesh_path(&world.run, n1), &[])?;
    second.wait_for_log(&["another agent runs here"], LIMIT)?;
    second.stop()?;
    for to in at(world.server.addresses(), HTTP) {
        answered(&world.client, to)?;
    }
    Ok(())
}
