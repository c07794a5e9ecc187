//! A service on another network: agents of two networks, and between them a gateway that sees nothing but TLS.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, ensure};
use harness::mesh_file::{Gateway, HBONE_PORT, Workload};
use netns_tests::terminator::Terminator;
use netns_tests::{Bare, HTTP, LIMIT, SERVICE, WEB, World, at, ips, metric, until_answered};

const EAST: &str = "east";
const CLIENT: &str = "spiffe://cluster.local/ns/demo/sa/client";
const SERVER: &str = "spiffe://cluster.local/ns/demo/sa/server";
const GATEWAY: &str = "spiffe://cluster.local/ns/demo/sa/plain";

/// The second node is in the east, where `plain` is the gateway to `server`.
fn world(names: &[&str]) -> Result<(World, Terminator)> {
    let mut bare = Bare::new()?;
    let gateway = Gateway::at(EAST, bare.plain.ipv4().into());
    bare.mesh.workloads.push(Workload { network: EAST.into(), ..Workload::of_pod(&bare.plain).plain() });
    let server = bare.mesh.workload("server");
    server.network = EAST.into();
    server.network_gateway = Some(gateway);
    bare.mesh.service("web").subject_alt_names = names.iter().map(|&name| name.to_owned()).collect();
    let world = bare.enrol_each([&[], &["--network", EAST]])?;
    let onward = SocketAddr::from((world.server.ipv4(), HBONE_PORT));
    let terminator = Terminator::start(&world.plain, &world.run.dir().join("ca"), GATEWAY, onward)?;
    Ok((world, terminator))
}

#[test]
fn a_service_of_another_network_is_reached_by_a_tunnel_inside_a_tunnel() -> Result<()> {
    let (world, gateway) = world(&[SERVER])?;
    let tap = world.wire.tap()?;
    for target in at(ips(WEB), SERVICE) {
        let mut http = world.client.open_http(target)?;
        ensure!(http.stream().peer_addr()? == target);
        let own = http.stream().local_addr()?;
        let reply = http.get("/networks-needle")?;
        let expected = SocketAddr::from((world.server.ipv4(), HTTP));
        ensure!(reply.field("app") == "server" && reply.field("local") == expected.to_string());
        ensure!(reply.peer()?.ip() == IpAddr::from(world.plain.ipv4()), "{}", reply.body);
        drop(http);

        let asked = gateway.last()?;
        ensure!(asked.authority == "web.demo.svc.cluster.local:80", "{asked:?}");
        ensure!(asked.is_from(CLIENT) && !asked.headers.contains_key("x-forwarded-network"), "{asked:?}");
        let source = format!("src.addr={own}");
        let near = world.agent1.wait_for_log(&["connection complete", &source, "outbound"], LIMIT)?;
        for part in ["dst.hbone_addr=web.demo.svc.cluster.local:80", "dst.workload=\"server\"", SERVER] {
            ensure!(near.contains(part), "no {part} in {near}");
        }
        let through = format!("src.addr={}:", world.plain.ipv4());
        let far = world.agent2.wait_for_log(&["connection complete", &through, "inbound"], LIMIT)?;
        for part in ["src.workload=\"client\"", "src.namespace=\"demo\"", CLIENT, "web.demo"] {
            ensure!(far.contains(part), "no {part} in {far}");
        }
    }
    ensure!(gateway.asked().len() == 2);
    let labels = [("source_workload", "client"), ("connection_security_policy", "mutual_tls")];
    ensure!(metric(&world.agent2, "istio_tcp_connections_closed_total", &labels)? >= 2.0);
    tap.settle()?;
    ensure!(!tap.contains(b"networks-needle")?, "the payload was on the wire");
    Ok(())
}

#[test]
fn policy_on_another_network_knows_the_client_itself() -> Result<()> {
    let (mut world, _gateway) = world(&[SERVER])?;
    let target = at(ips(WEB), SERVICE)[0];
    until_answered(&world.client, target)?;
    world.mesh.deny("no-client", "demo", "client");
    world.write_mesh()?;
    let refused =
        || world.client.attempt(target, "/").is_ok_and(|attempt| attempt.is_refused()).then_some(());
    harness::eventually("the client to be refused", LIMIT, refused)?;
    until_answered(&world.neighbour, target)?;
    Ok(())
}

#[test]
fn who_is_not_named_by_the_service_is_not_spoken_to_behind_a_gateway() -> Result<()> {
    let (world, gateway) = world(&[GATEWAY])?;
    for target in at(ips(WEB), SERVICE) {
        let attempt = world.client.attempt(target, "/")?;
        ensure!(attempt.is_refused(), "{target}: {attempt:?}");
    }
    ensure!(gateway.asked().len() == 2, "the gateway itself is who it says it is");
    let flag = [("response_flags", "TLS_FAILURE"), ("reporter", "source")];
    ensure!(metric(&world.agent1, "istio_tcp_connections_failed_total", &flag)? >= 2.0);
    ensure!(world.agent2.log_lines(&["connection complete"]).is_empty());
    Ok(())
}

#[test]
fn without_its_gateway_a_service_of_another_network_is_refused_and_nothing_leaks() -> Result<()> {
    let (world, gateway) = world(&[SERVER])?;
    drop(gateway);
    let tap = world.wire.tap()?;
    for target in at(ips(WEB), SERVICE) {
        let attempt = world.client.attempt(target, "/leak-needle")?;
        ensure!(attempt.is_refused(), "{target}: {attempt:?}");
    }
    ensure!(!tap.contains(b"leak-needle")?, "the payload was on the wire");
    Ok(())
}
