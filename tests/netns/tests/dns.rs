//! Rows E5 to E8 of the truth table: DNS of a captured pod, in both families.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::inside::in_netns;
use hickory_proto::op::Message;
use netns_tests::questions::{question, reply};
use netns_tests::{LIMIT, World, at};

const PORT: u16 = 53;

/// Answers what it is asked with a text that says who asked whom, and counts.
struct Resolver {
    address: SocketAddr,
    asked: Arc<AtomicUsize>,
}

impl Resolver {
    fn start(netns: &Path, address: SocketAddr) -> Result<Self> {
        let socket = in_netns(netns, || UdpSocket::bind(address))?.with_context(|| format!("{address}"))?;
        let asked = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&asked);
        std::thread::spawn(move || {
            let mut buffer = [0; 2048];
            // Ends with the test's process.
            while let Ok((length, from)) = socket.recv_from(&mut buffer) {
                counter.fetch_add(1, Ordering::Relaxed);
                let asked = buffer.get(..length).unwrap_or_default();
                let Some(answer) = reply(asked, &format!("{} saw {}", address.ip(), from.ip())) else {
                    return;
                };
                if socket.send_to(&answer, from).is_err() {
                    return;
                }
            }
        });
        Ok(Self { address, asked })
    }

    fn asked(&self) -> usize {
        self.asked.load(Ordering::Relaxed)
    }
}

/// A UDP socket of a process in the pod.
fn socket(world: &World, bound: &str) -> Result<UdpSocket> {
    let socket = world.client.inside(|| UdpSocket::bind(bound))??;
    socket.set_read_timeout(Some(LIMIT))?;
    Ok(socket)
}

fn wildcard(target: SocketAddr) -> &'static str {
    if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" }
}

/// What an answer says: the text, and what was asked.
fn said(answer: &[u8]) -> Result<String> {
    let message = Message::from_vec(answer)?;
    let asked = message.queries.first().context("no question")?.name.to_ascii();
    let text = message.answers.first().context("no answer")?.data.to_string();
    Ok(format!("{}: {}", text.trim_matches('"'), asked.split('.').next().unwrap_or_default()))
}

fn ask(socket: &UdpSocket, target: SocketAddr, label: &str) -> Result<(String, SocketAddr)> {
    socket.send_to(&question(label)?, target)?;
    let mut buffer = [0; 2048];
    let (length, from) = socket.recv_from(&mut buffer).with_context(|| format!("no answer from {target}"))?;
    Ok((said(buffer.get(..length).unwrap_or_default())?, from))
}

/// How many of the client's queries were steered, by the agent's own count.
fn steered(world: &World) -> Result<u64> {
    let metrics = world.agent1.metrics()?;
    let line = metrics.lines().find(|l| {
        l.starts_with("culvert_capture_decisions_total{")
            && l.contains("\"client\"")
            && l.contains("\"dns_steered\"")
    });
    line.and_then(|line| line.rsplit(' ').next()?.parse().ok())
        .context("an enrolled pod has such a counter at all times")
}

#[test]
fn e5_queries_go_through_the_agent_and_the_answer_comes_from_the_resolver() -> Result<()> {
    let world = World::new()?;
    let (v4, v6) = world.outside.addresses();
    for target in at([v4.into(), v6.into()], PORT) {
        let resolver = Resolver::start(&world.outside.netns, target)?;
        let before = steered(&world)?;
        // Unconnected, as musl asks; bound to the pod's address; connected, as glibc asks.
        let own: IpAddr =
            if target.is_ipv4() { world.client.ipv4().into() } else { world.client.ipv6().into() };
        for bound in [wildcard(target).to_owned(), SocketAddr::new(own, 0).to_string()] {
            let socket = socket(&world, &bound)?;
            let (answer, from) = ask(&socket, target, "one")?;
            ensure!(
                answer == format!("{} saw {own}: one", target.ip()) && from == target,
                "{answer} from {from}"
            );
        }
        let socket = socket(&world, wildcard(target))?;
        socket.connect(target)?;
        ensure!(socket.peer_addr()? == target, "getpeername must stay {target}, is {}", socket.peer_addr()?);
        socket.send(&question("two")?)?;
        let mut buffer = [0; 2048];
        let length = socket.recv(&mut buffer)?;
        let answer = said(buffer.get(..length).unwrap_or_default())?;
        ensure!(answer == format!("{} saw {own}: two", target.ip()), "{answer}");
        ensure!(resolver.asked() == 3 && resolver.address == target);
        harness::eventually("three queries to be counted", LIMIT, || {
            (steered(&world).ok()? == before + 3).then_some(())
        })?;
    }
    Ok(())
}

#[test]
fn e5_two_resolvers_asked_by_one_socket_are_told_apart() -> Result<()> {
    let world = World::new()?;
    let (v4, _) = world.outside.addresses();
    let (gateway, _) = world.nodes[1].addresses();
    let first = Resolver::start(&world.outside.netns, SocketAddr::new(v4.into(), PORT))?;
    let second = Resolver::start(world.nodes[1].netns(), SocketAddr::new(gateway.into(), PORT))?;
    let socket = socket(&world, "0.0.0.0:0")?;
    for resolver in [&first, &second] {
        socket.send_to(&question("q")?, resolver.address)?;
    }
    let mut answered = Vec::new();
    for _ in 0..2 {
        let mut buffer = [0; 2048];
        let (length, from) = socket.recv_from(&mut buffer)?;
        let text = said(buffer.get(..length).unwrap_or_default())?;
        ensure!(text.starts_with(&from.ip().to_string()), "{text} came from {from}");
        answered.push(from);
    }
    answered.sort();
    let mut expected = vec![first.address, second.address];
    expected.sort();
    ensure!(answered == expected);
    Ok(())
}

#[test]
fn e5_with_a_dead_agent_names_are_resolved_all_the_same() -> Result<()> {
    let mut world = World::new()?;
    let (v4, v6) = world.outside.addresses();
    let targets = at([v4.into(), v6.into()], PORT);
    let resolvers = targets.map(|target| Resolver::start(&world.outside.netns, target));
    world.agent1.kill9()?;
    for (target, resolver) in targets.into_iter().zip(resolvers) {
        let (answer, from) = ask(&socket(&world, wildcard(target))?, target, "dead")?;
        ensure!(answer.ends_with("dead") && from == target && resolver?.asked() == 1, "{answer} from {from}");
    }
    Ok(())
}

#[test]
fn e5_a_pod_may_switch_it_off() -> Result<()> {
    let mut world = World::new()?;
    let (v4, _) = world.outside.addresses();
    let target = SocketAddr::new(v4.into(), PORT);
    let _resolver = Resolver::start(&world.outside.netns, target)?;
    for entry in world.mesh.enroll.iter_mut().filter(|entry| entry.name == "client") {
        entry.annotations.insert("ambient.istio.io/dns-capture".into(), "false".into());
    }
    world.write_mesh()?;
    world.agent1.wait_for_log(&["the pod's entry has changed", "demo/client"], LIMIT)?;
    harness::eventually("the entry to be served", LIMIT, || {
        (world.agent1.log_lines(&["pod enrolled", "demo/client"]).len() == 2).then_some(())
    })?;
    let before = steered(&world)?;
    ask(&socket(&world, "0.0.0.0:0")?, target, "plain")?;
    ensure!(steered(&world)? == before);
    Ok(())
}

/// Asks on a connection, and waits for the answer.
fn ask_by_tcp(stream: &mut TcpStream, label: &str) -> Result<String> {
    let question = question(label)?;
    let mut message = u16::try_from(question.len())?.to_be_bytes().to_vec();
    message.extend(question);
    stream.write_all(&message)?;
    let mut length = [0; 2];
    stream.read_exact(&mut length)?;
    let mut answer = vec![0; usize::from(u16::from_be_bytes(length))];
    stream.read_exact(&mut answer)?;
    said(&answer)
}

#[test]
fn e6_questions_on_a_connection_go_through_the_agent() -> Result<()> {
    let world = World::new()?;
    let (v4, v6) = world.outside.addresses();
    for target in at([v4.into(), v6.into()], PORT) {
        // It serves no connections: the agent asks it by datagram.
        let resolver = Resolver::start(&world.outside.netns, target)?;
        let mut stream = world.client.connect(target, LIMIT)??;
        stream.set_read_timeout(Some(LIMIT))?;
        ensure!(stream.peer_addr()? == target);
        let own: IpAddr =
            if target.is_ipv4() { world.client.ipv4().into() } else { world.client.ipv6().into() };
        for label in ["one", "two"] {
            let answer = ask_by_tcp(&mut stream, label)?;
            ensure!(answer == format!("{} saw {own}: {label}", target.ip()), "{answer}");
        }
        ensure!(resolver.asked() == 2);
    }
    Ok(())
}

#[test]
fn e6_what_is_no_question_is_captured_as_any_connection() -> Result<()> {
    let world = World::new()?;
    for address in world.outside_ips() {
        let target = SocketAddr::new(address, PORT);
        let server = in_netns(&world.outside.netns, || TcpListener::bind(target))??;
        let mut stream = world.client.connect(target, LIMIT)??;
        ensure!(stream.peer_addr()? == target);
        stream.write_all(b"SSH-2.0-client\r\n")?;
        let (mut accepted, peer) = server.accept()?;
        ensure!(peer != stream.local_addr()?, "the agent must stand between");
        accepted.set_read_timeout(Some(LIMIT))?;
        let mut read = [0; 16];
        accepted.read_exact(&mut read)?;
        ensure!(&read == b"SSH-2.0-client\r\n");
    }
    Ok(())
}

#[test]
fn e7_a_resolver_on_loopback_is_left_alone() -> Result<()> {
    let world = World::new()?;
    for target in ["127.0.0.53:53", "[::1]:53"] {
        let target: SocketAddr = target.parse()?;
        let resolver = Resolver::start(world.client.netns(), target)?;
        let before = steered(&world)?;
        let (answer, from) = ask(&socket(&world, wildcard(target))?, target, "local")?;
        ensure!(answer.ends_with("local") && from == target && resolver.asked() == 1);
        ensure!(steered(&world)? == before);
    }
    Ok(())
}

#[test]
fn e11_other_datagrams_are_left_alone() -> Result<()> {
    let world = World::new()?;
    for address in world.outside_ips() {
        let target = SocketAddr::new(address, 5353);
        let server = in_netns(&world.outside.netns, || UdpSocket::bind(target))??;
        server.set_read_timeout(Some(Duration::from_secs(10)))?;
        let client = socket(&world, wildcard(target))?;
        client.send_to(b"hello", target)?;
        let mut buffer = [0; 64];
        let (_, from) = server.recv_from(&mut buffer)?;
        ensure!(from.port() == client.local_addr()?.port(), "the very socket of the client must be seen");
    }
    Ok(())
}
