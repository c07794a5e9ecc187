//! A reset stays a reset, through the tunnel and back.

use std::io::ErrorKind;
use std::net::SocketAddr;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::world::{World, soon};
use crate::relay;

/// Reads until the connection ends, and expects it to end with a reset.
pub(super) async fn expect_reset(stream: &mut TcpStream) {
    let mut rest = Vec::new();
    let error = soon(stream.read_to_end(&mut rest)).await.expect_err("ended cleanly");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
}

/// Connects, and expects a reset; it may come so soon that connecting is what fails.
pub(super) async fn expect_refusal(way: SocketAddr) {
    match TcpStream::connect(way).await {
        Ok(mut stream) => expect_reset(&mut stream).await,
        Err(error) => assert_eq!(error.kind(), ErrorKind::ConnectionReset),
    }
}

#[tokio::test]
async fn the_applications_reset_reaches_the_client() {
    let mut world = World::new();
    let (mut client, mut app) = world.connected(80).await;
    app.write_all(b"half an ans").await.unwrap();
    let mut bytes = [0; 11];
    soon(client.read_exact(&mut bytes)).await.unwrap();
    relay::reset(app);
    expect_reset(&mut client).await;
    world.server.metric(&["connections_closed_total", "response_flags=\"-\"", "} 1"]).await;
}

#[tokio::test]
async fn the_clients_reset_reaches_the_application() {
    let mut world = World::new();
    let (client, mut app) = world.connected(80).await;
    relay::reset(client);
    expect_reset(&mut app).await;
}

#[tokio::test]
async fn a_reset_after_a_half_close_is_not_missed() {
    let mut world = World::new();
    let (mut client, mut app) = world.connected(80).await;
    client.shutdown().await.unwrap();
    let mut bytes = Vec::new();
    soon(app.read_to_end(&mut bytes)).await.unwrap();
    relay::reset(client);
    // Nothing is left to be read from the client: only its socket's error tells.
    let broken = async {
        while app.write_all(b"still there?").await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    };
    soon(broken).await;
}

#[tokio::test]
async fn resets_pass_a_plain_connection_too() {
    let mut world = World::new();
    let app = world.app(80).await;
    let mut client = TcpStream::connect(world.plain_way_to(80)).await.unwrap();
    let (accepted, _) = soon(app.accept()).await.unwrap();
    relay::reset(accepted);
    expect_reset(&mut client).await;
}
