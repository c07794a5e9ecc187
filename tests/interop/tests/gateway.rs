//! Envoy as the gateway of another network: our agent reaches a service there by a tunnel inside a tunnel.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Result, ensure};
use harness::mesh_file::{self, Service, Workload};
use interop_tests::config::Gateway;
use interop_tests::{Envoy, HBONE, HTTP, LIMIT, NAMESPACE, World, identity};

const EAST: &str = "east";
/// Addresses of the service, one a family.
const VIPS: [&str; 2] = ["10.96.0.30", "2001:db8:96::30"];
const PORT: u16 = 80;

/// The second node is in the east, where an Envoy in `spare` is the gateway to `v1`, which serves `far`.
fn world() -> Result<World> {
    let mut vips = Vec::new();
    for vip in VIPS {
        vips.push(vip.parse::<IpAddr>()?);
    }
    World::with_arguments([&[], &["--network", EAST]], move |pods, mesh| {
        let mut far = Service::new("far", NAMESPACE, &vips, &[(PORT, HTTP)]);
        far.subject_alt_names = vec![identity("v1")];
        for workload in mesh.workloads.iter_mut().filter(|workload| workload.name == "v1") {
            workload.services.insert(far.key(), far.ports.clone());
            workload.network = EAST.to_owned();
            workload.network_gateway = Some(mesh_file::Gateway::at(EAST, pods.spare.ipv4().into()));
        }
        let gateway = Workload { network: EAST.to_owned(), ..Workload::of_pod(&pods.spare).plain() };
        mesh.workloads.push(gateway);
        mesh.services = vec![far];
    })
}

#[test]
fn a_service_of_another_network_is_reached_through_it_unread() -> Result<()> {
    let mut world = world()?;
    world.tell(|world| {
        let (own, spare) = (world.credentials("spare")?, &world.pods.spare);
        let onward = SocketAddr::from((world.pods.v1.ipv4(), HBONE));
        let clients = vec![identity("client")];
        let gateway = Gateway { addresses: spare.addresses(), own: &own, clients, onward };
        let envoy = Envoy::start(spare, &gateway.bootstrap())?;
        for vip in VIPS {
            let mut http = world.pods.client.open_http(SocketAddr::new(vip.parse()?, PORT))?;
            for path in ["/one", "/two"] {
                let reply = http.get(path)?;
                ensure!(reply.field("app") == "v1" && reply.field("path") == path, "{reply:?}");
            }
            drop(http);
            // The gateway is asked for the service's name and learns who asks, the workload behind it as well.
            let host = format!("far.{NAMESPACE}.svc.cluster.local:{PORT}");
            let (asked, client) = (format!("CONNECT {host} "), identity("client"));
            envoy.wait_for_log(&[
                "access connect_terminate",
                &asked,
                "code=200",
                &format!("peer={client}"),
            ])?;
            let near =
                ["connection complete", "outbound", &format!("dst.hbone_addr={host}"), &identity("v1")];
            world.agent1.wait_for_log(&near, LIMIT)?;
            let far = ["connection complete", "inbound", "src.workload=\"client\"", &client];
            world.agent2.wait_for_log(&far, LIMIT)?;
        }
        // Who is none of its clients gets no further than to it.
        let attempt = world.pods.other.attempt(SocketAddr::new(VIPS[0].parse()?, PORT), "/")?;
        ensure!(attempt.is_refused(), "a stranger to the gateway: {attempt:?}");
        Ok(())
    })
}
