//! Envoy as server of tunnels: our agent asks it for the workload that it stands beside.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use harness::mesh_file::Workload;
use interop_tests::config::Server;
use interop_tests::{Credentials, Envoy, HTTP, LIMIT, Signer, World, identity};

/// A world in which the pod `gate` takes tunnels, though no agent serves it.
fn world() -> Result<World> {
    World::new(|pods, mesh| mesh.workloads.push(Workload::of_pod(&pods.gate)))
}

fn serve(world: &World, own: &Credentials, clients: &[String]) -> Result<Envoy> {
    let gate = &world.pods.gate;
    let server = Server { addresses: gate.addresses(), own, clients: clients.to_vec(), streams: 100 };
    Envoy::start(gate, &server.bootstrap())
}

#[test]
fn it_takes_our_tunnels_and_learns_who_sends_them() -> Result<()> {
    let mut world = world()?;
    world.tell(|world| {
        let gate = &world.pods.gate;
        let _app = gate.serve_http(HTTP)?;
        let envoy = serve(world, &world.credentials("gate")?, &[identity("client")])?;
        for (ip, source) in gate.addresses().into_iter().zip(world.pods.client.addresses()) {
            let to = SocketAddr::new(ip, HTTP);
            let mut http = world.pods.client.open_http(to)?;
            let own = http.stream().local_addr()?;
            for path in ["/one", "/two"] {
                let reply = http.get(path)?;
                ensure!(reply.field("app") == "gate" && reply.field("path") == path, "{reply:?}");
            }
            drop(http);
            let parts = [
                &format!("access connect_terminate CONNECT {to} "),
                "code=200",
                &format!("peer={}", identity("client")),
                &format!("from={}", SocketAddr::new(source, 0).to_string().trim_end_matches('0')),
                "k8s.namespace.name=demo",
                "service.name=client",
                &format!("forwarded=for=\"{own}\""),
                "traceparent=00-",
            ];
            envoy.wait_for_log(&parts.map(|part| part as &str))?;
            let parts =
                ["connection complete", "outbound", &identity("gate"), &format!("dst.hbone_addr={to}")];
            world.agent1.wait_for_log(&parts, LIMIT)?;
        }
        // One tunnel a family, however many connections.
        ensure!(envoy.stat("http.connect_terminate.downstream_cx_total")? == 2);
        // What it refuses is refused to the application.
        let attempt = world.pods.client.attempt(SocketAddr::new(gate.ipv4().into(), 4444), "/")?;
        ensure!(attempt.is_refused(), "a closed port: {attempt:?}");
        world.agent1.wait_for_log(&["outbound", "http status: 503"], LIMIT)?;
        Ok(())
    })
}

#[test]
fn who_shows_another_name_is_refused_both_ways() -> Result<()> {
    let mut world = world()?;
    world.tell(|world| {
        let gate = &world.pods.gate;
        let _app = gate.serve_http(HTTP)?;
        let to = SocketAddr::new(gate.ipv4().into(), HTTP);
        let right = world.credentials("gate")?;
        let impostor = world.issue("impostor", Signer::Mesh, &identity("impostor"))?;
        let foreign = "spiffe://elsewhere.example/ns/demo/sa/gate";
        let foreign = world.issue("foreign", Signer::Mesh, foreign)?;
        let stranger = world.issue("stranger", Signer::Stranger, &identity("gate"))?;
        let (client, other) = (identity("client"), identity("other"));
        let presented = format!("peer has identity {}, expected {}", identity("impostor"), identity("gate"));
        for (own, clients, words) in [
            (&impostor, &client, presented.as_str()),
            (&foreign, &client, "peer has identity spiffe://elsewhere.example/ns/demo/sa/gate"),
            (&stranger, &client, "signed by an unknown authority"),
            // This time it is Envoy that wants another name than ours.
            (&right, &other, "peer refused the handshake"),
        ] {
            let envoy = serve(world, own, std::slice::from_ref(clients))?;
            let attempt = world.pods.client.attempt(to, "/")?;
            ensure!(attempt.is_refused(), "{words}: {attempt:?}");
            world.agent1.wait_for_log(&["outbound", words], LIMIT)?;
            ensure!(envoy.stat("http.connect_terminate.downstream_rq_total")? == 0, "{words}: it was asked");
            if clients == &other {
                envoy.wait_stat("listener.connect_terminate.ssl.fail_verify_san", |count| count > 0)?;
            }
        }
        let _envoy = serve(world, &right, &[client])?;
        let attempt = world.pods.client.attempt(to, "/")?;
        ensure!(attempt.is_ok(), "{attempt:?}");
        Ok(())
    })
}
