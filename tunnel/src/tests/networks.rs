//! A service on another network: a tunnel inside a tunnel, by way of that network's gateway.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use http::StatusCode;
use mesh::workload::{GatewayAddress, GatewayDestination};
use mesh::{Identity, NamespacedHostname, NetworkAddress, Service, Workload};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::resets::{expect_refusal, expect_reset};
use super::world::{SERVER, World, eventually, soon, workload};
use crate::hbone::server::{self, ConnectRequest};
use crate::relay::{self, Counters, Far, RelayError};
use crate::tls::Configs;
use crate::{CertificateProvider as _, Config, Http2Config, Timeouts};

const VIP: Ipv4Addr = Ipv4Addr::new(10, 96, 0, 1);
const GATEWAY: Ipv4Addr = Ipv4Addr::new(192, 0, 2, 9);
const EAST: &str = "east";

/// What a gateway does with the streams it gets.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Manner {
    /// Connects them to the server pod.
    Forward,
    /// Answers 503.
    Refuse,
    /// Accepts them, and keeps silent.
    Silence,
}

/// The gateway of the server's network.
struct Gateway {
    /// What it was asked for, and whether it was told of the client's network.
    asked: Arc<Mutex<Vec<(String, bool)>>>,
    task: tokio::task::JoinHandle<()>,
}

impl Drop for Gateway {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Gateway {
    async fn new(world: &World, manner: Manner) -> Self {
        let identity = Identity::new("cluster.local", "default", "gateway");
        let certificate = world.certificates.certificate(&identity).await.unwrap();
        let tls = Configs::default().server(&identity, &certificate).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        world.places.place((GATEWAY, mesh::HBONE_PORT).into(), listener.local_addr().unwrap());
        let pod = world.places.at((SERVER, mesh::HBONE_PORT).into());
        let asked: Arc<Mutex<Vec<_>>> = Arc::default();
        let seen = Arc::clone(&asked);
        let task = tokio::spawn(async move {
            let (_serving, serving) = watch::channel(());
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let (acceptor, serving, seen) = (tls.acceptor(), serving.clone(), Arc::clone(&seen));
                tokio::spawn(async move {
                    let Ok(stream) = acceptor.accept(stream).await else { return };
                    let (config, limits) = (Http2Config::default(), Timeouts::default());
                    let served = server::serve(stream, &config, &limits, serving, |request| {
                        seen.lock()
                            .unwrap()
                            .push((request.asked.authority.to_string(), request.asked.network.is_some()));
                        tokio::spawn(forward(request, pod, manner));
                    });
                    // How tunnels end is seen at their ends.
                    let _ = served.await;
                });
            }
        });
        Self { asked, task }
    }
}

async fn forward(request: ConnectRequest, pod: SocketAddr, manner: Manner) {
    if manner == Manner::Refuse {
        return request.refuse(StatusCode::SERVICE_UNAVAILABLE);
    }
    let tcp = TcpStream::connect(pod).await.unwrap();
    let stream = request.accept("").unwrap();
    if manner == Manner::Silence {
        std::future::pending::<()>().await;
    }
    let counters = Counters::default();
    let (limits, never) = (Timeouts::default(), std::future::pending());
    let _ = relay::run::<RelayError>(tcp, Far::Stream(stream), &counters, &limits, never).await;
}

/// A client on the unnamed network; a server in the east that serves a service, whose peers show one of `names`.
fn world(timeouts: Timeouts, names: &[&str]) -> World {
    let key = NamespacedHostname::new("default", "web.default.svc.cluster.local");
    let config = Config { timeouts, ..Config::default() };
    let configs = [config.clone(), Config { network: EAST.into(), ..config }];
    let gateway = GatewayAddress {
        destination: GatewayDestination::Address(NetworkAddress::new(EAST, GATEWAY.into())),
        hbone_mtls_port: mesh::HBONE_PORT,
    };
    let world = World::of_two(configs, |_, server| {
        server.network = EAST.into();
        server.network_gateway = Some(gateway.into());
        server.services.insert(key.clone(), [(80, 8080)].into());
    });
    let name = |account: &&str| Identity::new("cluster.local", "default", *account).to_string().into();
    world.store.update(|snapshot| {
        let mut editor = snapshot.edit();
        editor.insert_workload(Workload { network: EAST.into(), ..workload("gateway", GATEWAY) });
        editor.insert_service(Service {
            name: "web".into(),
            namespace: key.namespace,
            hostname: key.hostname,
            vips: vec![NetworkAddress::new("", VIP.into())],
            ports: [(80, 8080)].into(),
            subject_alt_names: names.iter().map(name).collect(),
            ..Service::default()
        });
        Some(editor.finish())
    });
    world
}

#[tokio::test]
async fn a_service_on_another_network_is_reached_through_its_gateway() {
    let mut world = world(Timeouts::default(), &["server"]);
    // Were the client looked up by its address, it would be this one.
    world.store.update(|snapshot| {
        let mut editor = snapshot.edit();
        let mut decoy = workload("decoy", Ipv4Addr::LOCALHOST);
        (decoy.service_account, decoy.network) = ("client".into(), EAST.into());
        editor.insert_workload(decoy);
        Some(editor.finish())
    });
    let gateway = Gateway::new(&world, Manner::Forward).await;
    let app = world.app(8080).await;
    let way = world.way_to((VIP, 80));
    for _ in 0..2 {
        let mut client = TcpStream::connect(way).await.unwrap();
        let (mut accepted, _) = soon(app.accept()).await.unwrap();
        client.write_all(b"ping").await.unwrap();
        let mut bytes = [0; 4];
        soon(accepted.read_exact(&mut bytes)).await.unwrap();
        accepted.write_all(b"answer").await.unwrap();
        drop(accepted);
        let mut answer = String::new();
        soon(client.read_to_string(&mut answer)).await.unwrap();
        assert_eq!((&bytes, answer.as_str()), (b"ping", "answer"));
    }
    let outer = ("web.default.svc.cluster.local:80".to_owned(), false);
    assert_eq!(*gateway.asked.lock().unwrap(), [outer.clone(), outer]);
    assert_eq!(world.client.tunnels(), 1, "the tunnel to the gateway is shared");
    for (node, reporter) in [(&world.client, "source"), (&world.server, "destination")] {
        let start = format!("connections_closed_total{{reporter=\"{reporter}\",source_workload=\"client\"");
        let service = "destination_service=\"web.default.svc.cluster.local\"";
        let principal = "destination_principal=\"spiffe://cluster.local/ns/default/sa/server\"";
        let end = "response_flags=\"-\",connection_security_policy=\"mutual_tls\"";
        node.metric(&[&start, service, principal, end, "} 2"]).await;
    }
}

#[tokio::test]
async fn much_passes_both_tunnels_intact_and_a_reset_stays_one() {
    let mut world = world(Timeouts::default(), &["server"]);
    let _gateway = Gateway::new(&world, Manner::Forward).await;
    let app = world.app(8080).await;
    let way = world.way_to((VIP, 80));
    let client = TcpStream::connect(way).await.unwrap();
    let (accepted, _) = soon(app.accept()).await.unwrap();
    let bytes: Vec<u8> = (0..8_u32 << 20).map(|at| (at % 251) as u8).collect();
    let send = async |mut stream: TcpStream| {
        let (mut read, mut write) = stream.split();
        let mut received = Vec::new();
        let sending = async {
            write.write_all(&bytes).await.unwrap();
            write.shutdown().await.unwrap();
        };
        tokio::join!(sending, async { read.read_to_end(&mut received).await.unwrap() });
        assert!(received == bytes, "bytes were changed on the way");
    };
    soon(async { tokio::join!(send(client), send(accepted)) }).await;
    let mut client = TcpStream::connect(way).await.unwrap();
    let (accepted, _) = soon(app.accept()).await.unwrap();
    relay::reset(accepted);
    expect_reset(&mut client).await;
    eventually(|| world.client.tunnel.connections().is_empty()).await;
}

#[tokio::test]
async fn behind_a_gateway_the_services_names_alone_are_accepted() {
    // The endpoint's own identity is `server`, and the gateway's `gateway`: neither is enough.
    for names in [&["successor"][..], &["gateway"], &[]] {
        let mut world = world(Timeouts::default(), names);
        let _gateway = Gateway::new(&world, Manner::Forward).await;
        let _app = world.app(8080).await;
        expect_refusal(world.way_to((VIP, 80))).await;
        let flag = "response_flags=\"TLS_FAILURE\"";
        world.client.metric(&["connections_failed_total{reporter=\"source\"", flag, "} 1"]).await;
        assert!(world.server.tunnel.connections().is_empty());
    }
}

#[tokio::test]
async fn what_fails_beyond_the_gateway_is_told_as_in_any_tunnel() {
    let mut refusing = world(Timeouts::default(), &["server"]);
    let _gateway = Gateway::new(&refusing, Manner::Refuse).await;
    expect_refusal(refusing.way_to((VIP, 80))).await;
    refusing.client.metric(&["connections_failed_total", "\"CONNECT\"", "} 1"]).await;

    let mut absent = world(Timeouts::default(), &["server"]);
    let _gateway = Gateway::new(&absent, Manner::Forward).await;
    absent.absent_app(8080).await;
    expect_refusal(absent.way_to((VIP, 80))).await;
    for node in [&absent.client, &absent.server] {
        node.metric(&["connections_failed_total", "\"CONNECT\"", "} 1"]).await;
    }
}

#[tokio::test]
async fn a_gateway_that_accepts_and_keeps_silent_is_not_waited_for_any_longer_than_others() {
    let timeouts = Timeouts { tls_handshake: Duration::from_millis(300), ..Timeouts::default() };
    let mut world = world(timeouts, &["server"]);
    let _gateway = Gateway::new(&world, Manner::Silence).await;
    expect_refusal(world.way_to((VIP, 80))).await;
    world.client.metric(&["connections_failed_total", "\"TLS_FAILURE\"", "} 1"]).await;
}
