//! Two pods of one agent, connected without a tunnel: the same checks, the same records; and nobody else gets in that way.

use std::net::{Ipv4Addr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use mesh::policy::Action;
use mesh::{NetworkAddress, Workload};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::oneshot;

use super::carry::answered_late;
use super::resets::{expect_refusal, expect_reset};
use super::world::{SERVER, World, eventually, policy, soon, workload};
use crate::relay;
use crate::same_node::Taken;
use crate::served::Served;
use crate::{Config, Direction, SameNode, Timeouts};

const HBONE: (Ipv4Addr, u16) = (SERVER, mesh::HBONE_PORT);

fn config() -> Config {
    Config { same_node: SameNode::Direct, ..Config::default() }
}

/// Both pods on one node, which connects them directly.
fn world() -> World {
    let mut world = World::configured(config(), |_, _| {});
    world.move_server_to_client();
    world
}

async fn outcome(world: &World, outcome: &str, count: u32) {
    let name = format!("culvert_same_node_connections_total{{outcome=\"{outcome}\"}} {count}");
    world.client.metric(&[&name]).await;
}

/// The client reaches the application, both ways.
async fn reaches(world: &mut World, port: u16) {
    let (mut client, mut app) = world.connected(port).await;
    exchange(&mut client, &mut app).await;
}

async fn exchange(client: &mut TcpStream, app: &mut TcpStream) {
    let mut bytes = [0; 4];
    client.write_all(b"ping").await.unwrap();
    soon(app.read_exact(&mut bytes)).await.unwrap();
    assert_eq!(&bytes, b"ping");
    app.write_all(b"pong").await.unwrap();
    soon(client.read_exact(&mut bytes)).await.unwrap();
    assert_eq!(&bytes, b"pong");
}

#[tokio::test]
async fn a_connection_is_direct_and_told_by_both_its_ends_as_what_it_is() {
    let mut world = world();
    let (mut client, mut app) = world.connected(80).await;
    exchange(&mut client, &mut app).await;
    assert_eq!(world.client.tunnels(), 0);
    let live = world.client.tunnel.connections();
    assert!(live.len() == 2 && live.iter().all(|connection| !connection.hbone), "{live:?}");
    let inbound = live.iter().find(|connection| connection.direction == Direction::Inbound).unwrap();
    assert_eq!(inbound.identity.as_ref().unwrap().service_account().as_ref(), "client");
    drop((client, app));
    for reporter in ["source", "destination"] {
        let reporter = format!("reporter=\"{reporter}\"");
        for (name, value) in [("connections_closed", "} 1"), ("received_bytes", "} 4"), ("sent_bytes", "} 4")]
        {
            let parts = [
                &format!("istio_tcp_{name}_total"),
                &reporter,
                "source_principal=\"spiffe://cluster.local/ns/default/sa/client\"",
                "destination_principal=\"spiffe://cluster.local/ns/default/sa/server\"",
                "response_flags=\"-\",connection_security_policy=\"unknown\"",
                value,
            ];
            world.client.metric(&parts).await;
        }
    }
    outcome(&world, "direct", 1).await;
}

#[tokio::test]
async fn unless_it_is_asked_for_pods_of_one_node_use_a_tunnel() {
    let mut world = World::new();
    let served = world.move_server_to_client();
    reaches(&mut world, 80).await;
    assert_eq!((world.client.tunnels(), served.offers.len()), (1, 0));
    world.client.metric(&["reporter=\"destination\"", "\"mutual_tls\"", "} 1"]).await;
}

#[tokio::test]
async fn the_client_may_end_first_and_still_be_answered() {
    let mut world = world();
    answered_late(&mut world).await;
}

#[tokio::test]
async fn an_application_that_speaks_first_is_heard() {
    let mut world = world();
    let (mut client, mut app) = world.connected(80).await;
    app.write_all(b"220 welcome").await.unwrap();
    let mut banner = [0; 11];
    soon(client.read_exact(&mut banner)).await.unwrap();
    assert_eq!(&banner, b"220 welcome");
}

#[tokio::test]
async fn resets_pass_both_ways() {
    let mut world = world();
    let (mut client, app) = world.connected(80).await;
    relay::reset(app);
    expect_reset(&mut client).await;
    let (client, mut app) = world.connected(80).await;
    relay::reset(client);
    expect_reset(&mut app).await;
}

#[tokio::test]
async fn a_denial_is_told_as_a_tunnels_is() {
    let mut world = world();
    world.add_policy(policy(Action::Deny, 80));
    let _app = world.app(80).await;
    expect_refusal(world.way_to((SERVER, 80))).await;
    for (reporter, flag) in [("source", "CONNECT"), ("destination", "DENY")] {
        let (reporter, flag) = (format!("reporter=\"{reporter}\""), format!("response_flags=\"{flag}\""));
        world.client.metric(&["connections_failed_total", &reporter, &flag, "} 1"]).await;
    }
    outcome(&world, "direct", 1).await;
    assert_eq!(world.client.tunnels(), 0);
}

#[tokio::test]
async fn an_application_that_is_not_there_is_told_as_through_a_tunnel() {
    let mut world = world();
    world.absent_app(80).await;
    expect_refusal(world.way_to((SERVER, 80))).await;
    for reporter in ["reporter=\"source\"", "reporter=\"destination\""] {
        world.client.metric(&["connections_failed_total", reporter, "\"CONNECT\"", "} 1"]).await;
    }
    assert_eq!(world.client.tunnels(), 0);
}

#[tokio::test]
async fn a_live_connection_is_cut_when_policy_comes_to_deny_it() {
    let mut world = world();
    let (mut client, mut app) = world.connected(80).await;
    world.add_policy(policy(Action::Deny, 80));
    expect_reset(&mut client).await;
    expect_reset(&mut app).await;
    world.client.metric(&["connections_closed_total", "reporter=\"destination\"", "\"DENY\"", "} 1"]).await;
}

#[tokio::test]
async fn a_pod_that_another_process_serves_is_reached_by_hbone_and_not_tried_again_at_once() {
    let mut world = World::configured(config(), |_, _| {});
    // This agent has the pod too, but its listener is not the one that is reached: as while two agents hand over.
    let unreached = world.places.capture(HBONE.into());
    let served = world.serve_beside_client(unreached);
    let app = world.app(80).await;
    let way = world.way_to((SERVER, 80));
    for _ in 0..3 {
        let mut client = TcpStream::connect(way).await.unwrap();
        let (mut accepted, _) = soon(app.accept()).await.unwrap();
        exchange(&mut client, &mut accepted).await;
    }
    assert_eq!(served.offers.len(), 0);
    outcome(&world, "fallback", 1).await;
    world.server.metric(&["connections_opened_total", "\"mutual_tls\"", "} 3"]).await;
}

/// Passes bytes on, from an address and port of its own.
async fn translate(listener: TcpListener, to: SocketAddr) {
    while let Ok((mut near, _)) = listener.accept().await {
        let mut far = TcpStream::connect(to).await.unwrap();
        tokio::spawn(async move { tokio::io::copy_bidirectional(&mut near, &mut far).await });
    }
}

#[tokio::test]
async fn where_addresses_are_translated_on_the_way_hbone_is_used() {
    let mut world = world();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let (front, behind) = (listener.local_addr().unwrap(), world.places.at(HBONE.into()));
    world.places.place(HBONE.into(), front);
    tokio::spawn(translate(listener, behind));
    reaches(&mut world, 80).await;
    outcome(&world, "fallback", 1).await;
    assert_eq!(world.client.tunnels(), 1);
}

#[tokio::test]
async fn who_accepts_and_says_nothing_is_given_up_on() {
    let mut world = world();
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let behind = world.places.at(HBONE.into());
    world.places.place(HBONE.into(), silent.local_addr().unwrap());
    let (places, app) = (world.places.clone(), world.app(80).await);
    let mut client = TcpStream::connect(world.way_to((SERVER, 80))).await.unwrap();
    let (_held, _) = soon(silent.accept()).await.unwrap();
    places.place(HBONE.into(), behind);
    let (mut accepted, _) = soon(app.accept()).await.unwrap();
    exchange(&mut client, &mut accepted).await;
    outcome(&world, "fallback", 1).await;
}

#[tokio::test]
async fn what_stands_before_a_waypoint_is_tunnelled() {
    let mut world = World::configured(config(), |_, server| {
        server.application_tunnel = Some(mesh::workload::ApplicationTunnel::default());
    });
    world.move_server_to_client();
    let front = mesh::workload::GatewayAddress {
        destination: mesh::workload::GatewayDestination::Address(NetworkAddress::new("", SERVER.into())),
        hbone_mtls_port: mesh::HBONE_PORT,
    };
    let hidden = Ipv4Addr::new(10, 0, 0, 4);
    world.store.update(|snapshot| {
        let mut editor = snapshot.edit();
        editor.insert_workload(Workload { waypoint: Some(front.into()), ..workload("hidden", hidden) });
        Some(editor.finish())
    });
    let app = world.app(80).await;
    let mut client = TcpStream::connect(world.way_to(SocketAddr::from((hidden, 80)))).await.unwrap();
    let (mut accepted, _) = soon(app.accept()).await.unwrap();
    exchange(&mut client, &mut accepted).await;
    assert_eq!(world.client.tunnels(), 1);
}

#[tokio::test]
async fn another_trust_domain_is_not_trusted_for_being_near() {
    let mut world = World::configured(config(), |client, _| client.trust_domain = "elsewhere".into());
    world.move_server_to_client();
    let _app = world.app(80).await;
    expect_refusal(world.way_to((SERVER, 80))).await;
    world.client.metric(&["connections_failed_total", "\"TLS_FAILURE\"", "} 1"]).await;
}

#[tokio::test]
async fn a_pod_that_is_not_who_is_meant_is_not_spoken_to() {
    let mut world = world();
    let _app = world.app(80).await;
    let way = world.way_to((SERVER, 80));
    // The address is another workload's now, but the old pod still answers there.
    world.store.update(|snapshot| {
        let mut editor = snapshot.edit();
        editor.insert_workload(workload("successor", SERVER));
        editor.insert_workload(workload("server", [10, 0, 0, 99].into()));
        Some(editor.finish())
    });
    expect_refusal(way).await;
    world.client.metric(&["connections_failed_total", "\"TLS_FAILURE\"", "} 1"]).await;
}

/// Leaves an offer for a connection that somebody makes from `own`, and returns what becomes of it.
fn bait(served: &Served, own: SocketAddr) -> (impl Drop, oneshot::Receiver<impl Sized>) {
    let (taken, proof) = Taken::made_up([42; 32]);
    let (left, ()) = served.offers.leave(HBONE.into(), taken, || Ok::<_, ()>((own, ()))).unwrap();
    (left, proof)
}

/// Connects to the server pod's HBONE port from a port that is known before.
async fn intrude(world: &World, served: &Served, baited: bool, words: &[u8]) -> (TcpStream, bool) {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let left = baited.then(|| bait(served, socket.local_addr().unwrap()));
    let mut stream = soon(socket.connect(world.places.at(HBONE.into()))).await.unwrap();
    stream.write_all(words).await.unwrap();
    let Some((_left, proof)) = left else { return (stream, false) };
    let recognized = soon(proof).await.is_ok();
    (stream, recognized)
}

/// What it gets before the connection ends.
async fn got(mut stream: TcpStream) -> Vec<u8> {
    let mut bytes = Vec::new();
    // Ended by a reset or not: what counts is what came.
    let _ = soon(stream.read_to_end(&mut bytes)).await;
    bytes
}

#[tokio::test]
async fn who_has_the_ends_of_an_offer_but_not_its_token_gets_nothing() {
    let mut world = World::configured(
        Config {
            timeouts: Timeouts { first_bytes: Duration::from_millis(200), ..Timeouts::default() },
            ..config()
        },
        |_, _| {},
    );
    let served = world.move_server_to_client();
    let app = world.app(80).await;
    let greeting = b"culvert-direct/1";
    let nearly = [&greeting[..], &[42; 31], &[43]].concat();
    let other_words = [&b"culvert-direct/2"[..], &[42; 32]].concat();
    let hello = [&[0x16, 3, 1, 0, 60][..], &[0; 60]].concat();
    for (name, words) in [
        ("another token", &nearly[..]),
        ("another greeting", &other_words),
        ("a TLS client", &hello),
        ("half of it and then silence", &greeting[..]),
        ("silence", &[]),
    ] {
        let (stream, recognized) = intrude(&world, &served, true, words).await;
        assert!(!recognized, "{name} was recognized");
        assert_eq!(got(stream).await, b"", "{name} was answered");
    }
    assert_eq!(served.offers.len(), 0);
    assert!(world.client.tunnel.connections().is_empty());
    assert!(futures_util::FutureExt::now_or_never(app.accept()).is_none(), "the application was reached");
}

#[tokio::test]
async fn who_has_the_token_but_not_the_ends_meets_a_tls_server() {
    let mut world = world();
    let served = world.move_server_to_client();
    // An offer waits, for a connection from elsewhere.
    let (_left, _proof) = bait(&served, "127.0.0.1:1".parse().unwrap());
    let words = [&b"culvert-direct/1"[..], &[42; 32]].concat();
    let (stream, _) = intrude(&world, &served, false, &words).await;
    // A fatal alert, unexpected_message or decode_error (RFC 8446 section 6).
    let answer = got(stream).await;
    assert_eq!(answer.get(..2), Some(&[0x15, 3][..]), "{answer:?}");
    assert_eq!(served.offers.len(), 1);
}

#[tokio::test]
async fn an_offer_whose_maker_has_given_up_is_not_served() {
    let mut world = world();
    let served = world.move_server_to_client();
    let app = world.app(80).await;
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let (left, proof) = bait(&served, socket.local_addr().unwrap());
    drop(proof);
    let mut stream = soon(socket.connect(world.places.at(HBONE.into()))).await.unwrap();
    stream.write_all(&[&b"culvert-direct/1"[..], &[42; 32]].concat()).await.unwrap();
    expect_reset(&mut stream).await;
    drop(left);
    assert!(futures_util::FutureExt::now_or_never(app.accept()).is_none(), "the application was reached");
}

#[tokio::test]
async fn many_at_once_are_all_direct() {
    let mut world = world();
    let app = world.app(80).await;
    let way = world.way_to((SERVER, 80));
    let clients = (0..64).map(|_| TcpStream::connect(way));
    let _clients = futures_util::future::try_join_all(clients).await.unwrap();
    let mut accepted = Vec::new();
    for _ in 0..64 {
        accepted.push(soon(app.accept()).await.unwrap());
    }
    eventually(|| world.client.tunnel.connections().len() == 128).await;
    outcome(&world, "direct", 64).await;
    assert_eq!(world.client.tunnels(), 0);
    let served: Vec<Arc<Served>> = world.client.tunnel.shared.pods();
    assert!(served.iter().all(|pod| pod.offers.len() == 0));
}
