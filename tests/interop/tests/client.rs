//! Envoy as client of tunnels: it asks our agents for captured pods.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, ensure};
use interop_tests::config::Client;
use interop_tests::world::only;
use interop_tests::{Credentials, Envoy, HBONE, HTTP, LIMIT, NAMESPACE, Signer, World, identity};

/// Ports on loopback from here on lead through Envoy's ways.
const FIRST_PORT: u16 = 9100;

/// A way to ask `at` for `authority`.
fn way<'a>(turn: u16, name: &'a str, own: &'a Credentials, (at, for_): (IpAddr, SocketAddr)) -> Client<'a> {
    let peer = SocketAddr::new(at, HBONE);
    Client { name, port: FIRST_PORT + turn, own, peer, accepted: identity("v1"), authority: for_ }
}

#[test]
fn captured_pods_take_its_tunnels() -> Result<()> {
    let mut world = World::new(|_, _| {})?;
    world.tell(|world| {
        let own = world.credentials("gate")?;
        let v1 = &world.pods.v1;
        let [four, six] = v1.addresses().map(|ip| (ip, SocketAddr::new(ip, HTTP)));
        let ways = [way(0, "four", &own, four), way(1, "six", &own, six)];
        let gate = &world.pods.gate;
        let _envoy = Envoy::start(gate, &Client::bootstrap(&ways))?;
        for (way, source) in ways.iter().zip(gate.addresses()) {
            let mut http = gate.open_http(way.local())?;
            for path in ["/one", "/two"] {
                let reply = http.get(path)?;
                // The app sees who sent the tunnel, and that it was asked for by its own address.
                ensure!(reply.field("app") == "v1" && reply.field("path") == path, "{reply:?}");
                ensure!(reply.peer()?.ip() == source, "{source} was seen as {reply:?}");
                ensure!(reply.field("local") == way.authority.to_string(), "{reply:?}");
            }
            drop(http);
            let parts = [
                "connection complete",
                "inbound",
                &identity("gate"),
                &format!("dst.hbone_addr={}", way.authority),
            ];
            world.agent2.wait_for_log(&parts, LIMIT)?;
        }
        Ok(())
    })
}

#[test]
fn a_client_that_cannot_prove_itself_gets_nothing() -> Result<()> {
    let mut world = World::new(|_, _| {})?;
    world.tell(|world| {
        let own = world.credentials("gate")?;
        let foreign = "spiffe://elsewhere.example/ns/demo/sa/gate";
        let foreign = world.issue("foreign", Signer::Mesh, foreign)?;
        let nameless = world.issue("nameless", Signer::Mesh, "https://cluster.local/ns/demo/sa/gate")?;
        let stranger = world.issue("stranger", Signer::Stranger, &identity("gate"))?;
        let v1 = world.pods.v1.ipv4().into();
        let to = (v1, SocketAddr::new(v1, HTTP));
        let mut ways = vec![
            way(0, "foreign", &foreign, to),
            way(1, "nameless", &nameless, to),
            way(2, "stranger", &stranger, to),
            way(3, "wary", &own, to),
            way(4, "right", &own, to),
        ];
        // It looks for a name that our pod has not: the refusal is Envoy's.
        ways[3].accepted = identity("v2");
        let gate = &world.pods.gate;
        let envoy = Envoy::start(gate, &Client::bootstrap(&ways))?;
        for way in ways.iter().take(4) {
            let attempt = gate.attempt(way.local(), "/")?;
            ensure!(attempt.is_refused(), "{}: {attempt:?}", way.name);
        }
        let told = |words: &[&str]| world.agent2.wait_for_log(words, LIMIT);
        told(&["spiffe://elsewhere.example/ns/demo/sa/gate", "not of trust domain cluster.local"])?;
        told(&["https://cluster.local/ns/demo/sa/gate", "not of trust domain cluster.local"])?;
        told(&["signed by an unknown authority"])?;
        envoy.wait_stat("cluster.wary.ssl.fail_verify_san", |count| count > 0)?;
        let right = gate.attempt(ways[4].local(), "/")?;
        ensure!(right.is_ok(), "{right:?}");
        let complete = world.agent2.log_lines(&["connection complete", "inbound"]);
        ensure!(complete.iter().all(|line| line.contains(&identity("gate"))), "{complete:?}");
        Ok(())
    })
}

#[test]
fn refusals_reach_its_applications() -> Result<()> {
    let mut world = World::new(|_, mesh| {
        mesh.policies.push(only("client"));
        for workload in mesh.workloads.iter_mut().filter(|workload| workload.name == "v2") {
            workload.authorization_policies = vec![format!("{NAMESPACE}/only-client")];
        }
    })?;
    world.tell(|world| {
        let own = world.credentials("gate")?;
        let (v1, v2) = (world.pods.v1.ipv4().into(), world.pods.v2.ipv4().into());
        let mut ways = [
            way(0, "policy", &own, (v2, SocketAddr::new(v2, HTTP))),
            way(1, "closed", &own, (v1, SocketAddr::new(v1, 4444))),
            way(2, "elsewhere", &own, (v1, SocketAddr::new(v2, HTTP))),
            way(3, "recursive", &own, (v1, SocketAddr::new(v1, HBONE))),
            way(4, "right", &own, (v1, SocketAddr::new(v1, HTTP))),
        ];
        ways[0].accepted = identity("v2");
        let gate = &world.pods.gate;
        let envoy = Envoy::start(gate, &Client::bootstrap(&ways))?;
        for (way, status) in ways.iter().zip(["401", "503", "400", "503"]) {
            let attempt = gate.attempt(way.local(), "/")?;
            ensure!(attempt.is_refused(), "{}: {attempt:?}", way.name);
            let refused = format!("failure=tunnel_response:{status}");
            envoy.wait_for_log(&[&format!("access {} ", way.name), &refused])?;
        }
        // A refusal ends a stream and not the tunnel: the good way shares one with those that were refused.
        let right = gate.attempt(ways[4].local(), "/")?;
        ensure!(right.is_ok(), "{right:?}");
        Ok(())
    })
}
