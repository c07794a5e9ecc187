//! Rows I1 to I3, I6, I7 and I9 of the truth table: what comes to a captured pod, in both families.

use std::io::{Read as _, Write as _};
use std::net::{IpAddr, SocketAddr};
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use harness::inside::in_netns;
use harness::{Attempt, client};
use netns_tests::{HTTP, LIMIT, World, at, metric};

#[test]
fn i1_plaintext_arrives_on_the_port_it_was_sent_to_with_its_source() -> Result<()> {
    let mut world = World::new()?;
    // Ports that the peers' agents occupy belong to the application here.
    for port in [15001, 15006] {
        world.apps.push(world.server.serve_http(port)?);
    }
    for port in [HTTP, 15001, 15006] {
        for target in at(world.server.addresses(), port) {
            let mut http = world.plain.open_http(target)?;
            let own = http.stream().local_addr()?;
            let reply = http.get("/")?;
            ensure!(
                reply.field("app") == "server" && reply.field("local") == target.to_string(),
                "{}",
                reply.body
            );
            ensure!(reply.peer()?.ip() == own.ip(), "{own} was seen as {}", reply.body);
            ensure!(reply.peer()? != own, "the agent must stand between");
            drop(http);
            let line = world
                .agent2
                .wait_for_log(&["connection complete", &format!("src.addr={own}"), "inbound"], LIMIT)?;
            ensure!(!line.contains("src.identity"), "{line}");
        }
    }
    Ok(())
}

#[test]
fn i2_port_15008_is_the_tunnels_even_if_the_app_has_bound_it() -> Result<()> {
    let mut world = World::new()?;
    world.apps.push(world.server.serve_http(15008)?);
    for target in at(world.server.addresses(), 15008) {
        // Plaintext meets TLS, never the application.
        let mut stream = world.plain.connect(target, LIMIT)??;
        stream.write_all(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")?;
        let mut answer = Vec::new();
        // A fatal alert, then the end; the end may be a reset.
        let _ = stream.read_to_end(&mut answer);
        ensure!(answer.first() == Some(&21), "expected a TLS alert from {target}, got {answer:?}");
    }
    for target in at(world.server.addresses(), HTTP) {
        ensure!(world.client.get(target, "/")?.field("app") == "server");
    }
    Ok(())
}

#[test]
fn i3_the_app_sees_the_client_and_not_the_agent() -> Result<()> {
    let world = World::new()?;
    for target in at(world.server.addresses(), HTTP) {
        let mut http = world.client.open_http(target)?;
        let own = http.stream().local_addr()?;
        let reply = http.get("/")?;
        ensure!(
            reply.peer()?.ip() == own.ip() && reply.field("local") == target.to_string(),
            "{}",
            reply.body
        );
        drop(http);
        let line = world
            .agent2
            .wait_for_log(&["connection complete", "inbound", &format!("dst.hbone_addr={target}")], LIMIT)?;
        ensure!(line.contains("src.identity=\"spiffe://cluster.local/ns/demo/sa/client\""), "{line}");
    }
    Ok(())
}

#[test]
fn i7_pods_of_one_node_use_the_tunnel_as_any_other() -> Result<()> {
    let world = World::new()?;
    for target in at(world.neighbour.addresses(), HTTP) {
        let mut http = world.client.open_http(target)?;
        let own = http.stream().local_addr()?;
        let reply = http.get("/")?;
        ensure!(reply.field("app") == "neighbour" && reply.peer()?.ip() == own.ip(), "{}", reply.body);
        drop(http);
        for direction in ["outbound", "inbound"] {
            let parts = [
                "connection complete",
                direction,
                "sa/client",
                "sa/neighbour",
                &format!("dst.hbone_addr={target}"),
            ];
            world.agent1.wait_for_log(&parts, LIMIT)?;
        }
    }
    Ok(())
}

#[test]
fn i9_a_closed_port_is_refused_at_once() -> Result<()> {
    let world = World::new()?;
    for from in [&world.client, &world.plain, &world.neighbour] {
        for target in at(world.server.addresses(), 4444) {
            refused_at_once(target, || from.attempt(target, "/"))?;
        }
    }
    Ok(())
}

fn refused_at_once(target: SocketAddr, attempt: impl FnOnce() -> Result<Attempt>) -> Result<()> {
    let began = Instant::now();
    let attempt = attempt()?;
    ensure!(attempt.is_refused(), "{target}: {attempt:?}");
    ensure!(began.elapsed() < Duration::from_secs(5), "refused only after {:?}", began.elapsed());
    Ok(())
}

/// Ports of the node that lead to the pod: with the client's address kept, and with the node's in its place.
const NODE_PORT: u16 = 30080;
const NODE_PORT_MASQUERADED: u16 = 30081;

/// What kube-proxy (a NodePort, a load balancer's address) and portmap (a hostPort) lay in the node.
fn lead_ports(world: &World) -> Result<()> {
    let node = world.nodes[1].addresses();
    let nodes: [IpAddr; 2] = [node.0.into(), node.1.into()];
    for (own, pod) in nodes.into_iter().zip(at(world.server.addresses(), HTTP)) {
        let mut rules = String::from("*nat\n");
        for port in [NODE_PORT, NODE_PORT_MASQUERADED] {
            for chain in ["PREROUTING", "OUTPUT"] {
                rules +=
                    &format!("-A {chain} -d {own} -p tcp --dport {port} -j DNAT --to-destination {pod}\n");
            }
        }
        let masqueraded = format!("-m conntrack --ctorigdstport {NODE_PORT_MASQUERADED}");
        rules += &format!("-A POSTROUTING -p tcp {masqueraded} -j MASQUERADE\nCOMMIT\n");
        harness::netfilter::add_rules(world.nodes[1].netns(), own.is_ipv6(), &rules)?;
    }
    Ok(())
}

fn attempt_from(netns: &Path, to: SocketAddr) -> Result<Attempt> {
    Ok(client::attempt(in_netns(netns, || client::connect(to, client::LIMIT))?, "/"))
}

#[test]
fn i3_a_borrowed_port_is_never_one_that_the_client_uses_itself() -> Result<()> {
    // So few ports that the kernel, drawing for both ends, would soon draw the same for both.
    const PORTS: &str = "40000 40063";
    const OPEN: usize = 24;
    let world = World::new()?;
    for pod in [&world.server, &world.plain, &world.client] {
        harness::inside::set_sysctl(pod.netns(), "net/ipv4/ip_local_port_range", PORTS)?;
    }
    for client in [&world.plain, &world.client] {
        for target in at(world.server.addresses(), HTTP) {
            let mut open = Vec::new();
            for turn in 0..OPEN {
                let mut http = client.open_http(target).with_context(|| format!("connection {turn}"))?;
                let reply = http.get("/")?;
                let port = reply.peer()?.port();
                ensure!(!(40_000..=40_063).contains(&port), "the application saw {}", reply.peer()?);
                open.push(http);
            }
            // None of them has got into another's way.
            for http in &mut open {
                http.get("/again")?;
            }
            // The client's own are used up now, but for a few.
            drop(open);
            for turn in 0..OPEN {
                let attempt = client.attempt(target, "/")?;
                ensure!(attempt.is_ok(), "connection {turn} of {} to {target}: {attempt:?}", client.name());
            }
        }
    }
    Ok(())
}

#[test]
fn i6_node_ports_and_host_ports_arrive_in_plaintext_with_the_source_that_the_node_leaves() -> Result<()> {
    let mut world = World::new()?;
    lead_ports(&world)?;
    let (node4, node6) = world.nodes[1].addresses();
    let outside = world.outside_ips();
    for (port, kept) in [(NODE_PORT, true), (NODE_PORT_MASQUERADED, false)] {
        for ((to, client), pod) in at([node4.into(), node6.into()], port)
            .into_iter()
            .zip(outside)
            .zip(at(world.server.addresses(), HTTP))
        {
            let Attempt::Answered(reply) = attempt_from(&world.outside.netns, to)? else {
                anyhow::bail!("{to} from outside");
            };
            ensure!(
                reply.field("app") == "server" && reply.field("local") == pod.to_string(),
                "{to}: {}",
                reply.body
            );
            let source = reply.peer()?.ip();
            ensure!((source == client) == kept, "{to} of {client} came from {source}");
            let shown = format!("src.addr={}", SocketAddr::new(source, 0));
            let shown = shown.trim_end_matches('0');
            let line = world.agent2.wait_for_log(&["connection complete", "inbound", shown], LIMIT)?;
            ensure!(!line.contains("src.identity"), "plaintext has no identity: {line}");
            // A process of the node itself is as anybody.
            let Attempt::Answered(reply) = attempt_from(world.nodes[1].netns(), to)? else {
                anyhow::bail!("{to} from the node");
            };
            ensure!(reply.field("local") == pod.to_string(), "{to}: {}", reply.body);
        }
    }
    let captured = steered(&world, "steered_plaintext")?;
    ensure!(captured >= 8.0, "{captured} connections through the plaintext listener");
    world.agent2.kill9()?;
    for to in at([node4.into(), node6.into()], NODE_PORT) {
        let attempt = attempt_from(&world.outside.netns, to)?;
        ensure!(attempt.is_refused(), "{to} with the pod's agent dead: {attempt:?}");
    }
    Ok(())
}

/// How many connections to the server `steer` handed where.
fn steered(world: &World, to: &str) -> Result<f64> {
    metric(
        &world.agent2,
        "culvert_capture_decisions_total",
        &[("namespace", "demo"), ("pod", "server"), ("decision", to)],
    )
}
