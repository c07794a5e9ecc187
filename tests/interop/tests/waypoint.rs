//! Envoy as waypoint: our agent sends it tunnels, it sends tunnels to our agents, and in between it does what only a proxy
//! of HTTP can.

use std::time::Duration;

use anyhow::{Result, ensure};
use harness::Attempt;
use interop_tests::chance::ensure_share;
use interop_tests::load::{Load, by_app};
use interop_tests::world::WAYPOINT_ACCOUNT;
use interop_tests::{HTTP, LIMIT, World, identity};

/// Streams that a waypoint takes in one connection, as Envoys of a mesh are set up.
const STREAMS: u32 = 100;
/// What the fault filter adds.
const DELAY: Duration = Duration::from_secs(2);

#[test]
fn requests_are_split_by_weight_and_routed_by_header() -> Result<()> {
    let mut world = World::with_waypoint(false)?;
    world.tell(|world| {
        let envoy = world.start_waypoint(&world.pods.gate, STREAMS)?;
        let client = &world.pods.client;
        let mut answers = Vec::new();
        for to in world.web() {
            answers.extend(Load::get(client, to, "/split").send(5, 30)?);
            let header = Load { headers: &[("x-version", "v2")], ..Load::get(client, to, "/header") };
            let chosen = by_app(header.send(4, 5)?.iter().map(|(reply, _)| reply))?;
            ensure!(chosen.get("v2") == Some(&20), "x-version: v2 went to {chosen:?}");
        }
        let split = by_app(answers.iter().map(|(reply, _)| reply))?;
        let (v1, v2) = (split.get("v1").copied().unwrap_or(0), split.get("v2").copied().unwrap_or(0));
        ensure!(v1 + v2 == 300, "{split:?}");
        ensure_share("requests at v2", v2, 300, 0.1)?;

        // Who the client is, is known at the waypoint by its certificate and its address; at the destination, the waypoint is.
        let own = client.ipv4().to_string();
        envoy.wait_for_log(&["access http GET", "code=200", "/split", &format!("from={own}:")])?;
        envoy.wait_for_log(&["access connect_terminate CONNECT 10.96.0.10:80", &identity("client"), &own])?;
        let gate = world.pods.gate.ipv4().to_string();
        for version in ["v1", "v2"] {
            let source = format!("source_principal=\"{}\"", identity(WAYPOINT_ACCOUNT));
            let destination = format!("destination_workload=\"{version}\"");
            let reporter = "istio_tcp_connections_opened_total{reporter=\"destination\"";
            World::wait_metric(&world.agent2, &[reporter, &source, &destination])?;
        }
        ensure!(answers.iter().any(|(reply, _)| reply.field("peer").starts_with(&format!("{gate}:"))));
        Ok(())
    })
}

#[test]
fn half_of_the_requests_are_delayed() -> Result<()> {
    let mut world = World::with_waypoint(false)?;
    world.tell(|world| {
        let envoy = world.start_waypoint(&world.pods.gate, STREAMS)?;
        let mut answers = Vec::new();
        for to in world.web() {
            answers.extend(Load::get(&world.pods.client, to, "/slow").send(30, 1)?);
        }
        by_app(answers.iter().map(|(reply, _)| reply))?;
        let injected =
            usize::try_from(envoy.wait_stat("http.http.fault.delays_injected", |count| count > 0)?)?;
        ensure_share("delayed requests", injected, answers.len(), 0.5)?;
        // A busy machine makes more of them late, and none early.
        let late = answers.iter().filter(|(_, took)| *took >= DELAY).count();
        ensure!(late >= injected, "{injected} were delayed, and {late} took {DELAY:?}");
        Ok(())
    })
}

#[test]
fn who_may_do_what_is_decided_by_method_and_principal() -> Result<()> {
    let mut world = World::with_waypoint(false)?;
    world.tell(|world| {
        let envoy = world.start_waypoint(&world.pods.gate, STREAMS)?;
        for to in world.web() {
            for (pod, method, status) in [
                (&world.pods.client, "GET", 200),
                (&world.pods.client, "POST", 403),
                (&world.pods.client, "DELETE", 403),
                (&world.pods.other, "GET", 403),
            ] {
                let reply = pod.open_http(to)?.request(method, "/", &[])?;
                ensure!(reply.status == status, "{} {method} {to}: {}", pod.name(), reply.status);
            }
        }
        envoy.wait_for_log(&["access http POST", "code=403", "rbac_access_denied"])?;
        envoy.wait_for_log(&["access connect_terminate CONNECT", &identity("other"), "code=200"])?;
        Ok(())
    })
}

#[test]
fn past_the_waypoint_nobody_gets_in() -> Result<()> {
    let mut world = World::with_waypoint(false)?;
    world.tell(|world| {
        let _envoy = world.start_waypoint(&world.pods.gate, STREAMS)?;
        let v1 = &world.pods.v1;
        for ip in v1.addresses() {
            let direct = std::net::SocketAddr::new(ip, HTTP);
            // In the mesh with another identity, and without any.
            for pod in [&world.pods.client, &world.pods.other, &world.pods.gate] {
                let attempt = pod.attempt(direct, "/")?;
                ensure!(attempt.is_refused(), "{} to {direct}: {attempt:?}", pod.name());
            }
            let told = format!("dst.addr={ip}");
            let told = if ip.is_ipv6() { format!("dst.addr=[{ip}]") } else { told };
            world.agent2.wait_for_log(&["inbound", &told, "policy"], LIMIT)?;
        }
        for to in world.web() {
            let attempt = world.pods.client.attempt(to, "/")?;
            ensure!(attempt.is_ok(), "{attempt:?}");
        }
        Ok(())
    })
}

#[test]
fn a_workload_has_a_waypoint_of_its_own() -> Result<()> {
    let mut world = World::with_waypoint(false)?;
    world.tell(|world| {
        let envoy = world.start_waypoint(&world.pods.gate, STREAMS)?;
        for ip in world.pods.v2.addresses() {
            let to = std::net::SocketAddr::new(ip, HTTP);
            let Attempt::Answered(reply) = world.pods.client.attempt(to, "/own")? else {
                anyhow::bail!("{to} does not answer");
            };
            ensure!(reply.status == 200 && reply.field("app") == "v2", "{to}: {reply:?}");
            envoy.wait_for_log(&[&format!("access connect_terminate CONNECT {to} "), "code=200"])?;
            let reply = world.pods.client.open_http(to)?.request("POST", "/own", &[])?;
            ensure!(reply.status == 403, "POST {to}: {reply:?}");
        }
        Ok(())
    })
}

#[test]
fn more_connections_than_a_tunnel_takes_are_spread_over_tunnels() -> Result<()> {
    const FEW: u32 = 5;
    const CONNECTIONS: usize = 60;
    let mut world = World::with_waypoint(false)?;
    world.tell(|world| {
        let envoy = world.start_waypoint(&world.pods.gate, FEW)?;
        let [to, _] = world.web();
        // All are open at once before any is used, and none has failed for the waypoint's limit.
        for turn in ["the first", "the second"] {
            let mut open = Vec::new();
            let connected: Result<Vec<_>> = std::thread::scope(|scope| {
                let clients: Vec<_> = (0..CONNECTIONS)
                    .map(|_| {
                        scope.spawn(|| -> Result<_> {
                            let mut http = world.pods.client.open_http(to)?;
                            let reply = http.get("/many")?;
                            Ok((http, reply))
                        })
                    })
                    .collect();
                clients
                    .into_iter()
                    .map(|client| client.join().map_err(|_| anyhow::anyhow!("a client panicked"))?)
                    .collect()
            });
            for (http, reply) in connected? {
                ensure!(reply.status == 200, "{turn}: {reply:?}");
                open.push(http);
            }
            let tunnels = envoy.stat("http.connect_terminate.downstream_cx_active")?;
            ensure!(tunnels >= CONNECTIONS as u64 / u64::from(FEW), "{turn}: {tunnels} tunnels");
            for http in &mut open {
                ensure!(http.get("/again")?.status == 200);
            }
        }
        Ok(())
    })
}
