//! Waypoints: what is in front of a service or a workload gets its connections, and nobody else does.

use std::net::SocketAddr;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::mesh_file::{ApplicationTunnel, Enroll, Gateway, HBONE_PORT, Service, Workload};
use harness::{Pod, eventually};
use netns_tests::terminator::Terminator;
use netns_tests::{Bare, HTTP, LIMIT, SERVICE, WEB, World, at, ips, metric, until_answered};
use serde_json::Value;

const CLIENT: &str = "spiffe://cluster.local/ns/demo/sa/client";
const WAYPOINT: &str = "spiffe://cluster.local/ns/demo/sa/plain";
const WEB_HOST: &str = "web.demo.svc.cluster.local";

/// A world in which `plain` is a workload that takes tunnels although it is not said to.
fn world(change: impl FnOnce(&mut Bare)) -> Result<World> {
    let mut bare = Bare::new()?;
    let waypoint = Workload::of_pod(&bare.plain).plain();
    bare.mesh.workloads.push(waypoint);
    change(&mut bare);
    bare.enrol()
}

/// A waypoint in `pod` that sends everything on to the server.
fn waypoint(world: &World, pod: &Pod, identity: &str) -> Result<Terminator> {
    let onward = SocketAddr::from((world.server.ipv4(), HTTP));
    Terminator::start(pod, &world.run.dir().join("ca"), identity, onward)
}

/// Connections of the client to `targets` go through the waypoint, which is asked for what was addressed.
fn goes_through(world: &World, waypoint: &Terminator, targets: [SocketAddr; 2], service: bool) -> Result<()> {
    let tap = world.wire.tap()?;
    for target in targets {
        let mut http = world.client.open_http(target)?;
        let own = http.stream().local_addr()?;
        let reply = http.get("/")?;
        ensure!(reply.field("app") == "server" && reply.peer()?.ip() == world.plain.ipv4(), "{}", reply.body);
        drop(http);
        let asked = waypoint.last()?;
        ensure!(asked.authority == target.to_string() && asked.is_from(CLIENT), "{asked:?}");
        let forwarded = asked.headers.get("forwarded").context("no forwarded header")?;
        let host = if service { format!(";host={WEB_HOST}") } else { String::new() };
        ensure!(*forwarded == format!("for=\"{own}\"{host}"), "{forwarded}");
        let baggage = asked.headers.get("baggage").context("no baggage")?;
        ensure!(baggage.contains("k8s.namespace.name=demo,k8s.deployment.name=client"), "{baggage}");
        let source = format!("src.addr={own}");
        let line = world.agent1.wait_for_log(&["connection complete", &source, "outbound"], LIMIT)?;
        let hop = format!("dst.hbone_addr={target} ");
        ensure!(line.contains(&hop) && line.contains(WAYPOINT), "{line}");
    }
    ensure!(!tap.ports()?.contains(&SERVICE), "something went past the waypoint");
    Ok(())
}

#[test]
fn a_service_behind_a_waypoint_that_is_known_by_its_address() -> Result<()> {
    let world = world(|bare| {
        let gateway = Gateway::at("", bare.plain.ipv4().into());
        bare.mesh.service("web").waypoint = Some(gateway);
    })?;
    let waypoint = waypoint(&world, &world.plain, WAYPOINT)?;
    goes_through(&world, &waypoint, at(ips(WEB), SERVICE), true)?;
    // The pod itself is not behind it.
    let asked = waypoint.asked().len();
    for target in at(world.server.addresses(), HTTP) {
        ensure!(world.client.get(target, "/")?.peer()?.ip() == own_address(&world, target));
    }
    ensure!(waypoint.asked().len() == asked);
    Ok(())
}

/// The client's address of the family of a target.
fn own_address(world: &World, target: SocketAddr) -> std::net::IpAddr {
    let [v4, v6] = world.client.addresses();
    if target.is_ipv4() { v4 } else { v6 }
}

#[test]
fn a_service_behind_a_waypoint_that_is_known_by_its_hostname() -> Result<()> {
    let world = world(|bare| {
        let front = Service::new("front", "demo", &[], &[(HBONE_PORT, HBONE_PORT)]);
        bare.mesh.workload("plain").services.insert(front.key(), front.ports.clone());
        bare.mesh.service("web").waypoint = Some(Gateway::of(&front));
        bare.mesh.services.push(front);
    })?;
    let waypoint = waypoint(&world, &world.plain, WAYPOINT)?;
    goes_through(&world, &waypoint, at(ips(WEB), SERVICE), true)
}

#[test]
fn a_workload_behind_a_waypoint() -> Result<()> {
    let world = world(|bare| {
        let gateway = Gateway::at("", bare.plain.ipv4().into());
        bare.mesh.workload("server").waypoint = Some(gateway);
    })?;
    let waypoint = waypoint(&world, &world.plain, WAYPOINT)?;
    goes_through(&world, &waypoint, at(world.server.addresses(), HTTP), false)?;
    // By its service it is reached directly.
    let asked = waypoint.asked().len();
    for target in at(ips(WEB), SERVICE) {
        ensure!(world.client.get(target, "/")?.peer()?.ip() == own_address(&world, target));
    }
    ensure!(waypoint.asked().len() == asked);
    Ok(())
}

#[test]
fn several_waypoints_share_by_weight() -> Result<()> {
    const CONNECTIONS: usize = 200;
    let mut bare = Bare::new()?;
    let second = bare.nodes[1].add_plain_pod("second", "demo")?;
    for pod in [&bare.plain, &second] {
        bare.mesh.workloads.push(Workload::of_pod(pod).plain());
    }
    let gateway = |pod: &Pod, weight| Gateway::at("", pod.ipv4().into()).weighing(weight);
    let weighted = vec![gateway(&bare.plain, 1), gateway(&second, 3)];
    bare.mesh.service("web").weighted_waypoints = weighted;
    let world = bare.enrol()?;
    let rare = waypoint(&world, &world.plain, WAYPOINT)?;
    let often = waypoint(&world, &second, "spiffe://cluster.local/ns/demo/sa/second")?;
    let target = at(ips(WEB), SERVICE)[0];
    for _ in 0..CONNECTIONS {
        ensure!(world.client.get(target, "/")?.status == 200);
    }
    let (rare, often) = (rare.asked().len(), often.asked().len());
    ensure!(rare + often == CONNECTIONS, "{rare} and {often}");
    // A quarter is 50, the standard deviation 6.1: six of them are a chance of one in five hundred million.
    ensure!((14..=86).contains(&rare), "{rare} of {CONNECTIONS} for one part in four");
    Ok(())
}

#[test]
fn an_application_that_is_a_waypoint_is_told_by_proxy_protocol_whom_it_serves() -> Result<()> {
    const PORT: u16 = 15088;
    let mut bare = Bare::new()?;
    let mut front = Workload::of_pod(&bare.plain);
    front.application_tunnel = Some(ApplicationTunnel { protocol: "PROXY".into(), port: PORT });
    bare.mesh.workloads.push(front);
    bare.mesh.service("web").waypoint = Some(Gateway::at("", bare.plain.ipv4().into()));
    bare.mesh.enroll.push(Enroll::running(&bare.plain));
    let world = bare.enrol()?;
    world.agent2.wait_for_log(&["pod enrolled", "demo/plain"], LIMIT)?;
    let words = ["serve-proxied", "--name", "sandwiched", "--port", &PORT.to_string()];
    let _app = harness::App::listening(&world.plain, &words, PORT)?;
    for target in at(ips(WEB), SERVICE) {
        let mut http = world.client.open_http(target)?;
        let own = http.stream().local_addr()?;
        // Every answer of the connection: the header comes once.
        for _ in 0..2 {
            let reply = http.get("/")?;
            ensure!(reply.field("app") == "sandwiched" && reply.peer()?.ip() == own.ip(), "{}", reply.body);
            let body: Value = serde_json::from_str(&reply.body)?;
            let told = |pointer: &str| body.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
            let client: SocketAddr = told("/proxied/client").parse()?;
            ensure!(client.ip() == own.ip() && told("/proxied/target") == target.to_string(), "{body}");
            ensure!(told("/proxied/more/0xd0") == CLIENT && told("/proxied/more/0xd1") == WEB_HOST, "{body}");
        }
    }
    // What is meant for the pod itself comes as it is.
    for target in at(world.plain.addresses(), HTTP) {
        ensure!(world.client.get(target, "/")?.field("app") == "plain");
    }
    Ok(())
}

#[test]
fn a_waypoint_that_is_another_or_not_there_gets_nothing_and_nothing_goes_past_it() -> Result<()> {
    let world = world(|bare| {
        let gateway = Gateway::at("", bare.plain.ipv4().into());
        bare.mesh.service("web").waypoint = Some(gateway);
    })?;
    let tap = world.wire.tap()?;
    let refused = |what: &str| -> Result<()> {
        for target in at(ips(WEB), SERVICE) {
            let attempt = world.client.attempt(target, "/past-needle")?;
            ensure!(attempt.is_refused(), "{what}: {target}: {attempt:?}");
        }
        Ok(())
    };
    refused("no waypoint")?;
    let impostor = waypoint(&world, &world.plain, "spiffe://cluster.local/ns/demo/sa/impostor")?;
    refused("an impostor")?;
    ensure!(impostor.asked().is_empty(), "{:?}", impostor.asked());
    drop(impostor);
    ensure!(!tap.contains(b"past-needle")?, "the payload was on the wire");
    let flag = [("response_flags", "TLS_FAILURE"), ("reporter", "source")];
    ensure!(metric(&world.agent1, "istio_tcp_connections_failed_total", &flag)? >= 2.0);
    let _waypoint = waypoint(&world, &world.plain, WAYPOINT)?;
    until_answered(&world.client, at(ips(WEB), SERVICE)[0])?;
    Ok(())
}

#[test]
fn a_waypoint_itself_reaches_what_is_behind_it() -> Result<()> {
    let world = world(|bare| {
        let gateway = Gateway::at("", bare.neighbour.ipv4().into());
        bare.mesh.service("web").waypoint = Some(gateway);
    })?;
    let target = at(ips(WEB), SERVICE)[0];
    let reply = world.neighbour.get(target, "/")?;
    ensure!(reply.field("app") == "server" && reply.peer()?.ip() == world.neighbour.ipv4(), "{}", reply.body);
    // Its own agent takes tunnels for it, and connects what is meant for it to be connected.
    let reply = world.client.attempt(target, "/")?;
    ensure!(reply.is_refused(), "the waypoint's application does not serve port {SERVICE}: {reply:?}");
    eventually("the waypoint's node to tell of it", Duration::from_secs(20), || {
        (!world.agent1.log_lines(&["connection complete", "inbound", "error="]).is_empty()).then_some(())
    })
}
