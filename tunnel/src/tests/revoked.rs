//! Certificates that come to be revoked while they are in use.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::resets::{expect_refusal, expect_reset};
use super::world::{SERVER, World, soon, workload};
use crate::Config;
use crate::tls::TlsOptions;

/// A world in which certificates can be revoked.
fn world() -> World {
    let tls = TlsOptions { revoked: Some(Vec::new()), ..TlsOptions::default() };
    World::configured(Config { tls, ..Config::default() }, |_, _| {})
}

/// A connection over which something has gone each way.
async fn open(world: &mut World) -> (TcpStream, TcpStream) {
    let (mut client, mut app) = world.connected(80).await;
    client.write_all(b"x").await.unwrap();
    soon(app.read_exact(&mut [0])).await.unwrap();
    app.write_all(b"x").await.unwrap();
    soon(client.read_exact(&mut [0])).await.unwrap();
    (client, app)
}

#[tokio::test]
async fn what_is_open_with_a_revoked_server_is_cut_and_nothing_more_is_opened() {
    let mut world = world();
    let (mut client, mut app) = open(&mut world).await;
    let list = world.certificates.revoke(&workload("server", SERVER).identity());
    assert_eq!(world.client.tunnel.revoke(&[list]), Ok(1));
    expect_reset(&mut client).await;
    expect_reset(&mut app).await;
    let flag = "response_flags=\"CERT_REVOKED\"";
    world.client.metric(&["connections_closed_total", flag, "} 1"]).await;
    world.client.metric(&["culvert_connections_cut_total", "certificate_revoked", "} 1"]).await;
    expect_refusal(world.way_to((SERVER, 80))).await;
    world.client.metric(&["connections_failed_total", flag, "} 1"]).await;
    // Once the list is taken back, all is well.
    world.client.tunnel.revoke(&[]).unwrap();
    let _ = world.connected(81).await;
}

#[tokio::test]
async fn what_is_open_with_a_revoked_client_is_cut_and_it_is_let_in_no_more() {
    let mut world = world();
    let (mut client, mut app) = open(&mut world).await;
    let list = world.certificates.revoke(&workload("client", super::world::CLIENT).identity());
    assert_eq!(world.server.tunnel.revoke(&[list]), Ok(1));
    expect_reset(&mut app).await;
    // The tunnel is gone; whether that reads as an end or a reset is TCP's to say.
    let _ = soon(client.read(&mut [0])).await;
    let flag = "response_flags=\"CERT_REVOKED\"";
    world.server.metric(&["connections_closed_total", flag, "} 1"]).await;
    let mut refused = TcpStream::connect(world.way_to((SERVER, 80))).await.unwrap();
    let _ = soon(refused.read(&mut [0])).await;
    world.server.metric(&["culvert_inbound_refusals_total", "reason=\"revoked\"", "} "]).await;
}

#[tokio::test]
async fn a_list_of_others_leaves_connections_alone() {
    let mut world = world();
    let (mut client, app) = open(&mut world).await;
    let other = world.certificates.revoke(&workload("other", SERVER).identity());
    for node in [&world.client, &world.server] {
        assert_eq!(node.tunnel.revoke(std::slice::from_ref(&other)), Ok(0));
    }
    app.writable().await.unwrap();
    app.try_write(b"x").unwrap();
    soon(client.read_exact(&mut [0])).await.unwrap();
}
