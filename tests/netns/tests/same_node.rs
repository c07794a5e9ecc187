//! Two pods of one node, connected without TLS because their agent was told to: the same network flow, the same checks, the
//! same records, and no way in for anybody else.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::SocketAddr;
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use harness::inside::in_netns;
use harness::{Attempt, WireTap, client, eventually};
use netns_tests::{Bare, HTTP, LIMIT, World, at, metric};

const TUNNELS: u16 = 15008;
const OUTCOMES: &str = "culvert_same_node_connections_total";

fn world() -> Result<World> {
    Bare::new()?.enrol_with(&["--same-node-transport", "direct"])
}

fn outcomes(world: &World, outcome: &str) -> Result<f64> {
    metric(&world.agent1, OUTCOMES, &[("outcome", outcome)])
}

#[test]
fn two_pods_of_one_node_are_connected_directly_and_told_so() -> Result<()> {
    let world = world()?;
    let tap = WireTap::start(world.nodes[0].netns())?;
    for target in at(world.neighbour.addresses(), HTTP) {
        let mut http = world.client.open_http(target)?;
        ensure!(http.stream().peer_addr()? == target);
        let own = http.stream().local_addr()?;
        let reply = http.get("/same-node-needle")?;
        ensure!(reply.field("app") == "neighbour", "{}", reply.body);
        ensure!(reply.peer()?.ip() == own.ip(), "the app must see the client's address: {}", reply.body);
        drop(http);
        for (direction, source) in [("outbound", own.to_string()), ("inbound", format!("{}", own.ip()))] {
            let parts = [
                "connection complete",
                &format!("direction=\"{direction}\""),
                "transport=\"direct\"",
                &source,
            ];
            let line = world.agent1.wait_for_log(&parts, LIMIT)?;
            for part in [
                "src.identity=\"spiffe://cluster.local/ns/demo/sa/client\"",
                "dst.identity=\"spiffe://cluster.local/ns/demo/sa/neighbour\"",
                &format!("dst.hbone_addr={target}"),
                ":15008 ",
            ] {
                ensure!(line.contains(part), "no {part} in {line}");
            }
        }
    }
    // On the way it is one flow to the port of tunnels, and what it is: plaintext.
    ensure!(tap.contains(b"same-node-needle")?);
    ensure!(tap.ports()?.iter().eq([&TUNNELS]), "{:?}", tap.ports()?);
    ensure!(tap.segments_of_port(TUNNELS)? > 0 && tap.segments_of_port(HTTP)? == 0);
    ensure!(outcomes(&world, "direct")? == 2.0 && outcomes(&world, "fallback")? == 0.0);
    for reporter in ["source", "destination"] {
        let labels = [
            ("reporter", reporter),
            ("source_principal", "spiffe://cluster.local/ns/demo/sa/client"),
            ("connection_security_policy", "unknown"),
        ];
        let name = "istio_tcp_connections_closed_total";
        eventually("both ends to count", LIMIT, || {
            metric(&world.agent1, name, &labels).ok().filter(|count| *count == 2.0)
        })?;
    }
    Ok(())
}

#[test]
fn pods_of_other_nodes_are_reached_through_tunnels_all_the_same() -> Result<()> {
    let world = world()?;
    let tap = world.wire.tap()?;
    for target in at(world.server.addresses(), HTTP) {
        let reply = world.client.get(target, "/other-node-needle")?;
        ensure!(reply.field("app") == "server");
    }
    ensure!(!tap.contains(b"other-node-needle")?, "the payload was on the wire");
    ensure!(outcomes(&world, "direct")? + outcomes(&world, "fallback")? == 0.0);
    Ok(())
}

#[test]
fn policy_knows_who_it_is_and_cuts_what_is_open() -> Result<()> {
    let mut world = world()?;
    let targets = at(world.neighbour.addresses(), HTTP);
    let mut open =
        targets.map(|target| world.client.open_http(target)).into_iter().collect::<Result<Vec<_>>>()?;
    for http in &mut open {
        http.get("/")?;
    }
    world.mesh.deny("no-client", "demo", "client");
    world.write_mesh()?;
    for http in &mut open {
        http.wait_until_cut(LIMIT)?;
    }
    world.agent1.wait_for_log(&["connection closed due to policy change", "transport=\"direct\""], LIMIT)?;
    for target in targets {
        let attempt = world.client.attempt(target, "/")?;
        ensure!(matches!(attempt, Attempt::Refused(_)), "{attempt:?}");
        for words in ["explicitly denied by: demo/no-client", "http status: 401 Unauthorized"] {
            world.agent1.wait_for_log(&["connection complete", words, "transport=\"direct\""], LIMIT)?;
        }
    }
    Ok(())
}

/// What somebody gets who connects and says what a direct connection begins with.
fn intrude(netns: &Path, to: SocketAddr) -> Result<Vec<u8>> {
    let connected = in_netns(netns, || client::connect(to, LIMIT))?;
    let mut stream = match connected {
        Ok(stream) => stream,
        Err(error) if matches!(error.kind(), ErrorKind::ConnectionReset | ErrorKind::ConnectionRefused) => {
            return Ok(Vec::new());
        }
        Err(error) => return Err(error).with_context(|| format!("connecting to {to}")),
    };
    stream.set_read_timeout(Some(LIMIT))?;
    let request = b"GET / HTTP/1.1\r\nHost: x\r\n\r\n";
    // It may be gone already: what counts is what comes back.
    let _ = stream.write_all(&[&b"culvert-direct/1"[..], &[7; 32], request].concat());
    let mut answer = Vec::new();
    match stream.read_to_end(&mut answer) {
        Ok(_) => Ok(answer),
        Err(error) if error.kind() == ErrorKind::ConnectionReset => Ok(answer),
        Err(error) => Err(error).with_context(|| format!("reading from {to}")),
    }
}

#[test]
fn nobody_else_gets_anything_of_the_port() -> Result<()> {
    let world = world()?;
    let alert = |answer: &[u8]| matches!(answer, [0x15, 3, ..]);
    for target in at(world.neighbour.addresses(), TUNNELS) {
        // A direct connection is open meanwhile, from the very pod that intrudes.
        let mut http = world.client.open_http(SocketAddr::new(target.ip(), HTTP))?;
        http.get("/")?;
        // A process of a captured pod: its connection is captured, and refused.
        let answer = intrude(world.client.netns(), target)?;
        ensure!(answer.is_empty(), "{answer:?}");
        // A pod that is not captured, and the node itself, meet the TLS server.
        for netns in [world.plain.netns(), world.nodes[0].netns()] {
            let answer = intrude(netns, target)?;
            ensure!(alert(&answer), "{}: {answer:?}", netns.display());
        }
        // A process of the client's pod with the rights to get round the capture: it comes from the very address that the
        // agent's own connections come from.
        let answer = uncaptured(&world, target)?;
        ensure!(alert(&answer), "{answer:?}");
        http.get("/still-open")?;
    }
    Ok(())
}

/// The same from the client's pod, whose route past the capture somebody has laid.
fn uncaptured(world: &World, target: SocketAddr) -> Result<Vec<u8>> {
    let name = world.client.netns().file_name().context("name")?.to_string_lossy().into_owned();
    let family = if target.is_ipv4() { "-4" } else { "-6" };
    let rule = |change: &str| {
        let rule = format!("pref 1 to {} lookup main", target.ip());
        harness::command::ip(&format!("-n {name} {family} rule {change} {rule}"))
    };
    rule("add")?;
    let answer = intrude(world.client.netns(), target);
    rule("del")?;
    answer
}

#[test]
fn where_ports_are_translated_on_the_way_tunnels_are_used() -> Result<()> {
    let world = world()?;
    for (own, target) in world.client.addresses().into_iter().zip(at(world.neighbour.addresses(), HTTP)) {
        let to = if own.is_ipv4() { format!("{own}:20000-20999") } else { format!("[{own}]:20000-20999") };
        let rule =
            format!("-A POSTROUTING -d {} -p tcp --dport {TUNNELS} -j SNAT --to-source {to}", target.ip());
        let rules = format!("*nat\n{rule}\nCOMMIT\n");
        harness::netfilter::add_rules(world.client.netns(), own.is_ipv6(), &rules)?;
        let reply = world.client.get(target, "/")?;
        ensure!(reply.field("app") == "neighbour" && reply.peer()?.ip() == own, "{}", reply.body);
        ensure!(outcomes(&world, "fallback")? == 1.0 && outcomes(&world, "direct")? == 0.0);
    }
    Ok(())
}

#[test]
fn an_upgrade_fails_nothing_and_the_next_agent_goes_on_directly() -> Result<()> {
    let mut world = world()?;
    let targets = at(world.neighbour.addresses(), HTTP);
    let mut open =
        targets.map(|target| world.client.open_http(target)).into_iter().collect::<Result<Vec<_>>>()?;
    let mut old = world.agent1.succeed()?;
    let mut requests = 0;
    eventually("the hand-over", LIMIT * 3, || {
        for target in targets {
            match world.client.attempt(target, "/") {
                Ok(Attempt::Answered(reply)) if reply.status == 200 => requests += 1,
                other => return Some(Err(format!("{other:?}"))),
            }
        }
        let done = !world.agent1.log_lines(&["handed over; this agent serves"]).is_empty();
        done.then_some(Ok(()))
    })?
    .map_err(anyhow::Error::msg)?;
    ensure!(requests > 0);
    world.agent1.wait_ready()?;
    for http in &mut open {
        http.get("/after")?;
    }
    drop(open);
    ensure!(old.wait_exit(LIMIT)?.success());
    // While two agents took what arrived, one may have met the other, and leaves it at tunnels for a while.
    eventually("direct connections of the next agent", LIMIT * 3, || {
        let answered = world.client.attempt(targets[0], "/").ok()?;
        let direct = outcomes(&world, "direct").ok()? >= 1.0;
        (direct && matches!(answered, Attempt::Answered(_))).then_some(())
    })?;
    Ok(())
}
