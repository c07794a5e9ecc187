//! Envoy as ingress gateway: plain HTTP from outside of the mesh, tunnels to captured pods.

use std::net::SocketAddr;

use anyhow::{Result, ensure};
use harness::inside::in_netns;
use harness::{Http, client};
use interop_tests::config::Ingress;
use interop_tests::world::only;
use interop_tests::{Envoy, HBONE, HTTP, NAMESPACE, World, identity};

/// Where the gateway is reached.
const PORT: u16 = 80;

#[test]
fn requests_from_outside_arrive_through_tunnels() -> Result<()> {
    // The pods take nothing but what the gateway sends.
    let mut world = World::new(|_, mesh| {
        mesh.policies.push(only("gate"));
        for workload in mesh.workloads.iter_mut().filter(|workload| ["v1", "v2"].contains(&&*workload.name)) {
            workload.authorization_policies = vec![format!("{NAMESPACE}/only-gate")];
        }
    })?;
    world.tell(|world| {
        let (gate, v1, v2) = (&world.pods.gate, &world.pods.v1, &world.pods.v2);
        let own = world.credentials("gate")?;
        let tap = world.wire.tap()?;
        let on = gate.addresses().map(|ip| SocketAddr::new(ip, PORT));
        let ingress = Ingress {
            on,
            own: &own,
            routes: vec![
                ("/v1", SocketAddr::new(v1.ipv4().into(), HTTP)),
                ("/v2", SocketAddr::new(v2.ipv6().into(), HTTP)),
            ],
            destinations: [v1, v2].map(|pod| identity(pod.name())).into(),
        };
        let _envoy = Envoy::start(gate, &ingress.bootstrap())?;
        for to in on {
            let stream = in_netns(&world.outside.netns, || client::connect(to, client::LIMIT))??;
            let mut http = Http::new(stream)?;
            for (path, app, source) in
                [("/v1/x", "v1", gate.addresses()[0]), ("/v2/x", "v2", gate.addresses()[1])]
            {
                let reply = http.get(path)?;
                ensure!(reply.status == 200 && reply.field("app") == app, "{to}{path}: {reply:?}");
                ensure!(reply.peer()?.ip() == source, "{source} was seen as {reply:?}");
            }
            ensure!(http.get("/v3")?.status == 404);
        }
        for pod in [v1, v2] {
            let source = format!("source_principal=\"{}\"", identity("gate"));
            let destination = format!("destination_principal=\"{}\"", identity(pod.name()));
            let opened = "istio_tcp_connections_opened_total{reporter=\"destination\"";
            World::wait_metric(&world.agent2, &[opened, &source, &destination, "mutual_tls"])?;
        }
        let ports = tap.ports()?;
        ensure!(ports.contains(&HBONE) && !ports.contains(&HTTP), "{ports:?}");
        // Not past the gateway.
        let direct = SocketAddr::new(v1.ipv4().into(), HTTP);
        let attempt = client::attempt(
            in_netns(&world.outside.netns, || client::connect(direct, client::LIMIT))?,
            "/v1/x",
        );
        ensure!(attempt.is_refused(), "{attempt:?}");
        Ok(())
    })
}
