//! How tunnels are shared, limited, released and replaced.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::resets::expect_reset;
use super::world::{SERVER, World, eventually, soon};
use crate::{Config, Http2Config, PoolConfig};

/// Opens `count` connections at once and waits until the application has them all.
async fn open(world: &mut World, app: &TcpListener, count: usize) -> Vec<(TcpStream, TcpStream)> {
    let way = world.way_to((SERVER, 80));
    let mut clients = Vec::new();
    for _ in 0..count {
        clients.push(TcpStream::connect(way).await.unwrap());
    }
    let mut open = Vec::new();
    for client in clients {
        open.push((client, soon(app.accept()).await.unwrap().0));
    }
    open
}

fn world(pool: PoolConfig) -> World {
    World::configured(Config { pool, ..Config::default() }, |_, _| {})
}

#[tokio::test]
async fn connections_of_a_pod_share_one_tunnel() {
    let mut world = World::new();
    let app = world.app(80).await;
    let _open = open(&mut world, &app, 20).await;
    assert_eq!(world.client.tunnels(), 1);
}

#[tokio::test]
async fn a_full_tunnel_is_joined_by_another() {
    let mut world = world(PoolConfig { max_streams: 4, ..PoolConfig::default() });
    let app = world.app(80).await;
    let _open = open(&mut world, &app, 10).await;
    assert_eq!(world.client.tunnels(), 3);
}

#[tokio::test]
async fn many_at_once_keep_to_what_the_peer_takes() {
    let http2 = Http2Config { max_streams: 3, ..Http2Config::default() };
    let mut world = World::configured(Config { http2, ..Config::default() }, |_, _| {});
    let app = world.app(80).await;
    let _open = open(&mut world, &app, 20).await;
    assert_eq!(world.client.tunnels(), 7);
}

#[tokio::test]
async fn an_unused_tunnel_is_released_and_the_next_connection_gets_a_new_one() {
    let mut world = world(PoolConfig { idle_release: Duration::from_millis(50), ..PoolConfig::default() });
    let app = world.app(80).await;
    let used = open(&mut world, &app, 2).await;
    tokio::time::sleep(Duration::from_millis(150)).await;
    assert_eq!(world.client.tunnels(), 1, "released while in use");
    drop(used);
    eventually(|| world.client.tunnels() == 0).await;
    open(&mut world, &app, 1).await;
}

#[tokio::test]
async fn of_several_unused_tunnels_one_is_kept() {
    let spare_release = Duration::from_millis(50);
    let mut world = world(PoolConfig { max_streams: 2, spare_release, ..PoolConfig::default() });
    let app = world.app(80).await;
    let used = open(&mut world, &app, 5).await;
    tokio::time::sleep(3 * spare_release).await;
    assert_eq!(world.client.tunnels(), 3, "released while in use");
    drop(used);
    eventually(|| world.client.tunnels() == 1).await;
    tokio::time::sleep(3 * spare_release).await;
    assert_eq!(world.client.tunnels(), 1, "the last one is not spare");
}

#[tokio::test]
async fn stopping_a_pod_closes_its_listeners_and_leaves_connections_alone() {
    let mut world = World::new();
    let app = world.app(80).await;
    let way = world.way_to((SERVER, 80));
    let mut client = TcpStream::connect(way).await.unwrap();
    let (mut accepted, _) = soon(app.accept()).await.unwrap();
    world.stop_pods();
    soon(async {
        while TcpStream::connect(way).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    })
    .await;
    client.write_all(b"still here").await.unwrap();
    let mut bytes = [0; 10];
    soon(accepted.read_exact(&mut bytes)).await.unwrap();
    assert_eq!(&bytes, b"still here");
}

#[tokio::test]
async fn a_tunnel_whose_peer_restarted_is_replaced_and_its_connections_are_reset() {
    let mut world = World::new();
    let app = world.app(80).await;
    let mut old = open(&mut world, &app, 1).await;
    world.restart_server();
    expect_reset(&mut old[0].0).await;
    open(&mut world, &app, 1).await;
}
