//! What ends with a pod: its unused tunnels at once, its identity with its last connection.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::resets::expect_refusal;
use super::world::{SERVER, World, eventually, soon, workload};
use crate::{Config, Http2Config};

#[tokio::test]
async fn tunnels_of_a_pod_that_stopped_are_closed_as_soon_as_they_are_unused() {
    let mut world = World::new();
    let unused = world.connected(80).await;
    drop(unused);
    eventually(|| world.client.tunnel.connections().is_empty()).await;
    let (mut client, mut app) = world.connected(80).await;
    assert_eq!(world.client.tunnels(), 2, "each start of a pod has tunnels of its own");
    world.stop_pods();
    eventually(|| world.client.tunnels() == 1).await;
    client.write_all(b"still here").await.unwrap();
    let mut bytes = [0; 10];
    soon(app.read_exact(&mut bytes)).await.unwrap();
    drop((client, app));
    eventually(|| world.client.tunnels() == 0).await;
}

#[tokio::test]
async fn an_identity_is_forgotten_with_the_last_pod_that_used_it() {
    let mut world = World::new();
    let (client, app) = world.connected(80).await;
    let other = world.connected(81).await;
    assert_eq!(world.certificates.issued(), 2);
    world.stop_pods();
    drop(other);
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert_eq!(world.certificates.issued(), 2, "a connection is there still");
    drop((client, app));
    eventually(|| world.certificates.issued() == 0).await;
}

#[tokio::test]
async fn peers_of_a_pod_that_stopped_leave_its_tunnels() {
    // h2 looks whether the last stream is gone when the next frame comes, the answer to a PING at the latest.
    let http2 = Http2Config { ping_interval: Duration::from_millis(100), ..Http2Config::default() };
    let mut world = World::configured(Config { http2, ..Config::default() }, |_, _| {});
    let (mut client, mut app) = world.connected(80).await;
    world.stop_server();
    // The peer is told not to open anything there any more; what is open goes on.
    expect_refusal(world.way_to((SERVER, 81))).await;
    client.write_all(b"still here").await.unwrap();
    let mut bytes = [0; 10];
    soon(app.read_exact(&mut bytes)).await.unwrap();
    drop((client, app));
    eventually(|| world.certificates.issued() == 1).await;
}

#[tokio::test]
async fn a_new_pods_certificate_is_fetched_before_it_is_needed() {
    let world = World::new();
    let server = workload("server", SERVER).identity();
    eventually(|| world.certificates.warmed() == [server.clone()]).await;
    assert_eq!(world.certificates.issued(), 0, "nobody has connected");
}
