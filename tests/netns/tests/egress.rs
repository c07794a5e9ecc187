//! Rows E1 to E4, E9 and E13 of the truth table: what a captured pod opens, in both families.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use harness::{Attempt, command};
use netns_tests::questions::{question, reply};
use netns_tests::{HTTP, LIMIT, OWN, SERVICE, WEB, World, at, ips, metric};

/// The address nobody may leave the mesh for unnoticed: clouds answer there.
const METADATA: &str = "169.254.169.254";

#[test]
fn e1_every_destination_reaches_the_outbound_listener() -> Result<()> {
    let world = World::new()?;
    let tap = world.wire.tap()?;
    let mut targets = Vec::new();
    targets.extend(at(world.server.addresses(), HTTP));
    targets.extend(at(ips(WEB), SERVICE));
    for target in targets {
        let mut http = world.client.open_http(target)?;
        ensure!(http.stream().peer_addr()? == target, "getpeername must stay {target}");
        let own = http.stream().local_addr()?;
        let reply = http.get("/e1-needle")?;
        let expected =
            if target.is_ipv4() { world.server.addresses()[0] } else { world.server.addresses()[1] };
        ensure!(
            reply.field("app") == "server" && reply.field("local").parse::<SocketAddr>()?.ip() == expected
        );
        ensure!(reply.peer()?.ip() == own.ip(), "the app must see the client's own address: {}", reply.body);
        drop(http);
        let source = format!("src.addr={own}");
        let line =
            world.agent1.wait_for_log(&["connection complete", &source, "direction=\"outbound\""], LIMIT)?;
        ensure!(
            line.contains(":15008 ")
                && line.contains("dst.identity=\"spiffe://cluster.local/ns/demo/sa/server\""),
            "{line}"
        );
    }
    tap.settle()?;
    ensure!(!tap.contains(b"e1-needle")?, "the payload was on the wire");
    ensure!(tap.segments_of_port(15008)? > 0);
    Ok(())
}

#[test]
fn e1_external_and_metadata_addresses_pass_through_the_agent() -> Result<()> {
    let world = World::new()?;
    let [node1, _] = &world.nodes;
    let name = node1.netns().file_name().context("name")?.to_string_lossy().into_owned();
    command::ip(&format!("-n {name} addr add {METADATA}/32 dev lo"))?;
    let mut servers = Vec::new();
    let bind = |netns: &std::path::Path, address: SocketAddr| -> Result<std::net::TcpListener> {
        Ok(harness::inside::in_netns(netns, || std::net::TcpListener::bind(address))??)
    };
    let metadata: IpAddr = METADATA.parse()?;
    servers.push(bind(node1.netns(), SocketAddr::new(metadata, SERVICE))?);
    for address in world.outside_ips() {
        servers.push(bind(&world.outside.netns, SocketAddr::new(address, SERVICE))?);
    }
    for server in servers {
        let target = server.local_addr()?;
        let mut stream = world.client.connect(target, LIMIT)??;
        ensure!(stream.peer_addr()? == target);
        let (mut accepted, peer) = server.accept()?;
        // The agent's own connection from the pod's namespace: same address, another port.
        ensure!(peer.ip() == stream.local_addr()?.ip() && peer != stream.local_addr()?, "{peer}");
        accepted.write_all(b"hello")?;
        let mut bytes = [0; 5];
        stream.read_exact(&mut bytes)?;
        let source = format!("src.addr={}", stream.local_addr()?);
        drop((stream, accepted));
        let line = world.agent1.wait_for_log(&["connection complete", &source], LIMIT)?;
        ensure!(line.contains(&format!("dst.addr={target}")) && !line.contains("dst.identity"), "{line}");
    }
    Ok(())
}

#[test]
fn e2_loopback_is_left_alone() -> Result<()> {
    let world = World::new()?;
    for target in ["127.0.0.1:8080", "127.9.8.7:8080", "[::1]:8080"] {
        directly(&world, target.parse()?)?;
    }
    Ok(())
}

#[test]
fn e3_the_pods_own_address_is_left_alone() -> Result<()> {
    let world = World::new()?;
    for target in at(world.client.addresses(), HTTP) {
        directly(&world, target)?;
    }
    Ok(())
}

/// The client's server sees the very socket of the client: nobody stands between them.
fn directly(world: &World, target: SocketAddr) -> Result<()> {
    let mut http = world.client.open_http(target)?;
    let own = http.stream().local_addr()?;
    let reply = http.get("/")?;
    ensure!(
        reply.field("app") == "client" && reply.peer()? == own,
        "{target}: {own} was seen as {}",
        reply.body
    );
    Ok(())
}

#[test]
fn e4_the_pods_own_service_goes_through_the_agent() -> Result<()> {
    let world = World::new()?;
    for target in at(ips(OWN), SERVICE) {
        let mut http = world.client.open_http(target)?;
        let own = http.stream().local_addr()?;
        ensure!(http.stream().peer_addr()? == target);
        let reply = http.get("/")?;
        ensure!(reply.field("app") == "client", "{}", reply.body);
        ensure!(reply.peer()?.ip() == own.ip() && reply.peer()? != own, "{own} was seen as {}", reply.body);
        drop(http);
        world.agent1.wait_for_log(
            &["connection complete", &format!("src.addr={own}"), "outbound", "own.demo"],
            LIMIT,
        )?;
    }
    Ok(())
}

#[test]
fn e9_replies_to_the_spoofed_client_reach_the_agent() -> Result<()> {
    let mut world = World::new()?;
    world.apps.push(world.server.serve_echo(9000)?);
    let data: Vec<u8> = (0..4 << 20).map(|i: u32| i.to_le_bytes()[1]).collect();
    // Through the tunnel, and in plaintext from a pod that is not in the mesh.
    for from in [&world.client, &world.plain] {
        for target in at(world.server.addresses(), 9000) {
            let mut stream = from.connect(target, LIMIT)??;
            let mut sender = stream.try_clone()?;
            let sent = data.clone();
            let writer = std::thread::spawn(move || {
                sender.write_all(&sent).and_then(|()| sender.shutdown(std::net::Shutdown::Write))
            });
            let mut received = Vec::new();
            stream.read_to_end(&mut received)?;
            writer.join().map_err(|_| anyhow::anyhow!("writer"))??;
            ensure!(received == data, "{} of {} bytes came back from {target}", received.len(), data.len());
        }
    }
    Ok(())
}

#[test]
fn e13_a_dead_agent_refuses_at_once() -> Result<()> {
    let mut world = World::new()?;
    world.agent1.kill9()?;
    let targets = at(ips(WEB), SERVICE)
        .into_iter()
        .chain(at(world.server.addresses(), HTTP))
        .chain(at(world.outside_ips(), SERVICE));
    for target in targets {
        let began = Instant::now();
        let attempt = world.client.attempt(target, "/")?;
        ensure!(
            matches!(&attempt, Attempt::Refused(e) if e.kind() == std::io::ErrorKind::ConnectionRefused),
            "{target}: {attempt:?}"
        );
        ensure!(began.elapsed() < Duration::from_secs(2), "refused only after {:?}", began.elapsed());
    }
    Ok(())
}

#[test]
fn e8_what_the_agent_opens_is_not_captured_again() -> Result<()> {
    const CONNECTIONS: usize = 5;
    let world = World::new()?;
    let tap = world.wire.tap()?;
    let count = |decision| {
        let labels = [("namespace", "demo"), ("pod", "client"), ("decision", decision)];
        metric(&world.agent1, "culvert_capture_decisions_total", &labels)
    };
    let (captured, agent, steered) = (count("captured")?, count("agent")?, count("steered_outbound")?);
    // Past the mesh: one socket of the agent for each connection. In the mesh: one tunnel, or a few.
    for target in at(world.plain.addresses(), HTTP) {
        for _ in 0..CONNECTIONS {
            ensure!(world.client.attempt(target, "/e8")?.is_ok(), "{target}");
        }
    }
    for target in at(world.server.addresses(), HTTP) {
        for _ in 0..CONNECTIONS {
            ensure!(world.client.attempt(target, "/e8")?.is_ok(), "{target}");
        }
    }
    let made = (4 * CONNECTIONS) as f64;
    // A proof by connection may fall in between: two captured connections, none of the agent's.
    let grown = |before: f64, now: f64| now - before - made;
    ensure!(
        (0.0..=2.0).contains(&grown(captured, count("captured")?)),
        "captured: what the application opened"
    );
    ensure!(
        (0.0..=2.0).contains(&grown(steered, count("steered_outbound")?)),
        "steered: what the application opened"
    );
    let own = count("agent")? - agent;
    ensure!((2.0 * CONNECTIONS as f64 + 2.0..made).contains(&own), "{own} connections of the agent's own");
    tap.settle()?;
    let own = world.client.addresses();
    for (port, what) in [(HTTP, "past the mesh"), (15008, "tunnels")] {
        for address in own {
            let seen =
                tap.any(|segment| segment.source.ip() == address && segment.destination.port() == port);
            ensure!(seen, "{what}: nothing came from {address}");
        }
    }
    Ok(())
}

#[test]
fn e8_a_query_that_the_agent_passes_on_is_not_steered_again() -> Result<()> {
    let world = World::new()?;
    let labels = [("namespace", "demo"), ("pod", "client"), ("decision", "dns_steered")];
    let steered = || metric(&world.agent1, "culvert_capture_decisions_total", &labels);
    let before = steered()?;
    for (target, own) in at(world.outside_ips(), 53).into_iter().zip(world.client.addresses()) {
        let resolver = harness::inside::in_netns(&world.outside.netns, || UdpSocket::bind(target))??;
        resolver.set_read_timeout(Some(LIMIT))?;
        let bound = if target.is_ipv4() { "0.0.0.0:0" } else { "[::]:0" };
        let client = world.client.inside(|| UdpSocket::bind(bound))??;
        client.set_read_timeout(Some(LIMIT))?;
        client.send_to(&question("e8")?, target)?;
        let mut buffer = [0; 512];
        let (length, from) = resolver.recv_from(&mut buffer)?;
        ensure!(from.ip() == own && from.port() != client.local_addr()?.port(), "{from} asks for {own}");
        let asked = buffer.get(..length).unwrap_or_default();
        resolver.send_to(&reply(asked, "e8").context("a question")?, from)?;
        ensure!(client.recv_from(&mut buffer)?.1 == target);
    }
    harness::eventually("two queries to be counted", LIMIT, || {
        (steered().ok()? == before + 2.0).then_some(())
    })
}
