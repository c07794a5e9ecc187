//! Peers that limit, refuse, leave or die: which streams go elsewhere, and which stay.

use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

use super::raw::{RawServer, RawTunnel};
use super::resets::expect_reset;
use super::world::{SERVER, World, eventually, soon};
use crate::{Config, Http2Config, PoolConfig};

/// Whether the client hears what is said on its stream.
async fn hears(client: &mut TcpStream, tunnel: &mut RawTunnel, stream: u32) {
    tunnel.say(stream, b"hello").await;
    let mut bytes = [0; 5];
    soon(client.read_exact(&mut bytes)).await.unwrap();
    assert_eq!(&bytes, b"hello");
}

/// A client whose stream is the first of a tunnel.
async fn first(way: SocketAddr, server: &RawServer) -> (TcpStream, RawTunnel, u32) {
    let mut client = TcpStream::connect(way).await.unwrap();
    let mut tunnel = server.tunnel(100).await;
    let stream = tunnel.request().await;
    tunnel.accept(stream).await;
    hears(&mut client, &mut tunnel, stream).await;
    (client, tunnel, stream)
}

#[tokio::test]
async fn a_client_announces_what_its_peers_do() {
    let mut world = World::new();
    let way = world.way_to((SERVER, 80));
    let server = RawServer::new(&world).await;
    let (_client, tunnel, stream) = first(way, &server).await;
    // No push, the windows of a stream and of the connection, the largest frame, the longest list of headers; as recorded
    // from a peer.
    let expected = [(2, 0), (4, 4_194_304), (5, 1_048_576), (6, 16_384)];
    assert_eq!((tunnel.settings, tunnel.widened, stream), (expected.into(), 16_711_681, 1));
}

#[tokio::test]
async fn a_tunnel_that_is_left_gets_no_more_streams_and_keeps_those_it_has() {
    let mut world = World::new();
    let way = world.way_to((SERVER, 80));
    let server = RawServer::new(&world).await;
    let (mut old, mut tunnel, stream) = first(way, &server).await;
    tunnel.go_away(stream).await;
    hears(&mut old, &mut tunnel, stream).await;
    let (mut new, mut other, its) = first(way, &server).await;
    hears(&mut old, &mut tunnel, stream).await;
    hears(&mut new, &mut other, its).await;
}

#[tokio::test]
async fn a_stream_that_the_peer_has_not_touched_is_opened_elsewhere() {
    let mut world = World::new();
    let way = world.way_to((SERVER, 80));
    let server = RawServer::new(&world).await;
    let (mut old, mut tunnel, stream) = first(way, &server).await;
    // One that is refused.
    let mut moved = TcpStream::connect(way).await.unwrap();
    let refused = tunnel.request().await;
    tunnel.refuse(refused).await;
    let mut other = server.tunnel(100).await;
    let its = other.request().await;
    other.accept(its).await;
    hears(&mut moved, &mut other, its).await;
    // One that came after the last, while the first tunnel is still preferred.
    let mut late = TcpStream::connect(way).await.unwrap();
    tunnel.request().await;
    tunnel.go_away(refused).await;
    let its = other.request().await;
    other.accept(its).await;
    hears(&mut late, &mut other, its).await;
    hears(&mut old, &mut tunnel, stream).await;
}

#[tokio::test]
async fn a_stream_that_is_refused_twice_has_failed() {
    let mut world = World::new();
    let way = world.way_to((SERVER, 80));
    let server = RawServer::new(&world).await;
    let (_old, mut tunnel, _) = first(way, &server).await;
    let mut client = TcpStream::connect(way).await.unwrap();
    let stream = tunnel.request().await;
    tunnel.refuse(stream).await;
    let mut other = server.tunnel(100).await;
    let stream = other.request().await;
    other.refuse(stream).await;
    expect_reset(&mut client).await;
    world.client.metric(&["connections_failed_total", "\"H2_HANDSHAKE_FAILURE\"", "} 1"]).await;
}

#[tokio::test]
async fn a_limit_that_is_lowered_counts_from_then_on() {
    let mut world = World::new();
    let way = world.way_to((SERVER, 80));
    let server = RawServer::new(&world).await;
    let (mut old, mut tunnel, stream) = first(way, &server).await;
    tunnel.allow(1).await;
    tunnel.noted().await;
    let (_new, mut other, _) = first(way, &server).await;
    // And one that is raised, too.
    tunnel.allow(2).await;
    tunnel.noted().await;
    let mut third = TcpStream::connect(way).await.unwrap();
    let its = tunnel.request().await;
    tunnel.accept(its).await;
    hears(&mut third, &mut tunnel, its).await;
    hears(&mut old, &mut tunnel, stream).await;
    other.go_away(1).await;
}

#[tokio::test]
async fn what_the_peer_allows_is_honoured_before_it_is_known() {
    let http2 = Http2Config { max_streams: 4, ..Http2Config::default() };
    let configs = [Config::default(), Config { http2, ..Config::default() }];
    let mut world = World::of_two(configs, |_, _| {});
    let app = world.app(80).await;
    let way = world.way_to((SERVER, 80));
    let mut open = Vec::new();
    for _ in 0..14 {
        open.push(TcpStream::connect(way).await.unwrap());
    }
    let mut accepted = Vec::new();
    for _ in 0..14 {
        accepted.push(soon(app.accept()).await.unwrap());
    }
    assert_eq!(world.client.tunnels(), 4);
}

#[tokio::test]
async fn a_peer_that_stops_answering_is_lost_with_all_its_streams() {
    let http2 = Http2Config {
        ping_interval: Duration::from_millis(50),
        ping_timeout: Duration::from_millis(200),
        ..Http2Config::default()
    };
    let mut world = World::configured(Config { http2, ..Config::default() }, |_, _| {});
    let way = world.way_to((SERVER, 80));
    let server = RawServer::new(&world).await;
    let (mut client, tunnel, _) = first(way, &server).await;
    tokio::join!(tunnel.die(), expect_reset(&mut client));
    eventually(|| world.client.tunnels() == 0).await;
    first(way, &server).await;
}

#[tokio::test]
async fn a_busy_peer_gets_a_few_tunnels_and_a_calm_one_no_more_than_one() {
    let pool = PoolConfig { crowded: 2, connections: 3, ..PoolConfig::default() };
    let mut world = World::configured(Config { pool, ..Config::default() }, |_, _| {});
    let app = world.app(80).await;
    let way = world.way_to((SERVER, 80));
    let mut open = Vec::new();
    for count in 1..=20 {
        let client = TcpStream::connect(way).await.unwrap();
        open.push((client, soon(app.accept()).await.unwrap()));
        // The next is dialled when the first is full of those that it carries well.
        let most = if count < 2 { 1 } else { 3 };
        assert!(world.client.tunnels() <= most, "{} for {count}", world.client.tunnels());
    }
    assert_eq!(world.client.tunnels(), 3);
}
