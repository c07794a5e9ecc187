//! Connections addressed to a service.

use std::net::{Ipv4Addr, SocketAddr};

use mesh::workload::{ApplicationTunnel, TunnelProtocol};
use mesh::{NamespacedHostname, NetworkAddress, Service, Workload};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::resets::expect_refusal;
use super::world::{SERVER, World, soon, workload};

pub(super) const VIP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);

fn key() -> NamespacedHostname {
    NamespacedHostname::new("default", "web.default.svc.cluster.local")
}

pub(super) fn serve(workload: &mut Workload) {
    workload.services.insert(key(), [(80, 8080)].into());
}

pub(super) fn publish(world: &World, others: impl IntoIterator<Item = Workload>) {
    world.store.update(|snapshot| {
        let mut editor = snapshot.edit();
        editor.insert_service(Service {
            name: "web".into(),
            namespace: key().namespace,
            hostname: key().hostname,
            vips: vec![NetworkAddress::new("", VIP.into())],
            ports: [(80, 8080)].into(),
            ..Service::default()
        });
        others.into_iter().for_each(|workload| editor.insert_workload(workload));
        Some(editor.finish())
    });
}

#[tokio::test]
async fn a_vip_leads_to_an_endpoint_and_is_named_in_the_metrics_of_both_nodes() {
    let mut world = World::with(|_, server| serve(server));
    publish(&world, []);
    let app = world.app(8080).await;
    let client = TcpStream::connect(world.way_to((VIP, 80))).await.unwrap();
    drop(soon(app.accept()).await.unwrap());
    drop(client);
    let service = "destination_service=\"web.default.svc.cluster.local\",\
                   destination_service_namespace=\"default\",destination_service_name=\"web\"";
    for node in [&world.client, &world.server] {
        node.metric(&["connections_closed_total", service, "response_flags=\"-\"", "} 1"]).await;
    }
}

#[tokio::test]
async fn a_service_without_endpoints_is_refused_and_counted() {
    let mut world = World::new();
    publish(&world, []);
    expect_refusal(world.way_to((VIP, 80))).await;
    world.client.metric(&["connections_failed_total", "response_flags=\"CONNECT\"", "} 1"]).await;
}

#[tokio::test]
async fn an_application_behind_a_tunnel_of_its_own_is_told_whom_it_serves() {
    let mut world = World::with(|_, server| {
        server.application_tunnel =
            Some(ApplicationTunnel { protocol: TunnelProtocol::Proxy, port: Some(15088) });
    });
    let front = mesh::workload::GatewayAddress {
        destination: mesh::workload::GatewayDestination::Address(NetworkAddress::new("", SERVER.into())),
        hbone_mtls_port: mesh::HBONE_PORT,
    };
    let hidden = Ipv4Addr::new(10, 0, 0, 4);
    publish(&world, [Workload { waypoint: Some(front.into()), ..workload("hidden", hidden) }]);
    let app = world.app(15088).await;
    let _client = TcpStream::connect(world.way_to(SocketAddr::from((hidden, 80)))).await.unwrap();
    let (mut accepted, _) = soon(app.accept()).await.unwrap();
    let mut header = [0; 28];
    soon(accepted.read_exact(&mut header)).await.unwrap();
    assert_eq!(&header[..14], b"\r\n\r\n\0\r\nQUIT\n\x21\x11");
    assert_eq!(&header[20..24], &hidden.octets());
    assert_eq!(&header[26..], &80u16.to_be_bytes());
    let mut identity = [0; 3 + "spiffe://cluster.local/ns/default/sa/client".len()];
    soon(accepted.read_exact(&mut identity)).await.unwrap();
    assert!(identity.ends_with(b"/sa/client"));
}

#[tokio::test]
async fn a_pod_reaches_itself_through_its_service() {
    let mut world = World::with(|_, server| serve(server));
    publish(&world, []);
    let app = world.app(8080).await;
    let client = TcpStream::connect(world.way_home_to((VIP, 80))).await.unwrap();
    drop(soon(app.accept()).await.unwrap());
    drop(client);
    for reporter in ["reporter=\"source\"", "reporter=\"destination\""] {
        let both = "source_workload=\"server\"";
        world.server.metric(&["connections_closed_total", reporter, both, "\"mutual_tls\"", "} 1"]).await;
    }
}
