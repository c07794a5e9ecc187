//! Rows I1 to I3, I7 and I9 of the truth table: what comes to a captured pod, in both families.

use std::io::{Read as _, Write as _};
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use harness::Attempt;
use netns_tests::{HTTP, LIMIT, World, at};

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
