//! Peers that take their time: every step of setting a tunnel up has its limit, on both ends.

use std::time::Duration;

use rustls_pki_types::ServerName;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::peer::connector;
use super::resets::expect_refusal;
use super::world::{SERVER, World, soon};
use crate::tls::Configs;
use crate::{CertificateProvider as _, Config, Timeouts};

const BRIEF: Duration = Duration::from_millis(300);

fn world(timeouts: Timeouts) -> World {
    World::configured(Config { timeouts, ..Config::default() }, |_, _| {})
}

/// Waits until the other end has closed the connection, whatever it sends before.
async fn closed(stream: &mut (impl AsyncReadExt + Unpin)) {
    soon(async { while !matches!(stream.read(&mut [0; 1024]).await, Ok(0) | Err(_)) {} }).await;
}

#[tokio::test]
async fn a_client_that_drips_its_handshake_is_left() {
    let world = world(Timeouts { tls_handshake: BRIEF, ..Timeouts::default() });
    let mut stream = TcpStream::connect(world.places.at((SERVER, mesh::HBONE_PORT).into())).await.unwrap();
    let (mut read, mut write) = stream.split();
    let drip = async {
        // The head of a long ClientHello, one byte after the other.
        for byte in [22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3].into_iter().chain(std::iter::repeat(0)) {
            if write.write_all(&[byte]).await.is_err() {
                break;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    soon(async {
        tokio::select! {
            () = drip => {}
            () = closed(&mut read) => {}
        }
    })
    .await;
}

#[tokio::test]
async fn a_client_that_never_speaks_http2_is_left() {
    let world = world(Timeouts { http2_handshake: BRIEF, ..Timeouts::default() });
    let at = world.places.at((SERVER, mesh::HBONE_PORT).into());
    for preface in [&b""[..], b"PRI * HTTP/2.0\r\n"] {
        let tcp = TcpStream::connect(at).await.unwrap();
        let name = ServerName::from(at.ip());
        let mut tls = soon(connector(&world).await.connect(name, tcp)).await.unwrap();
        tls.write_all(preface).await.unwrap();
        closed(&mut tls).await;
    }
}

#[tokio::test]
async fn a_server_that_accepts_and_says_nothing_is_left() {
    let mut world = world(Timeouts { tls_handshake: BRIEF, ..Timeouts::default() });
    let way = world.way_to((SERVER, 80));
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    world.places.place((SERVER, mesh::HBONE_PORT).into(), silent.local_addr().unwrap());
    expect_refusal(way).await;
    world.client.metric(&["connections_failed_total", "\"TLS_FAILURE\"", "} 1"]).await;
}

#[tokio::test]
async fn a_server_that_never_answers_is_left() {
    let mut world = world(Timeouts { answer: BRIEF, ..Timeouts::default() });
    let way = world.way_to((SERVER, 80));
    let identity = mesh::Identity::new("cluster.local", "default", "server");
    let certificate = world.certificates.certificate(&identity).await.unwrap();
    let server = Configs::default().server(&identity, &certificate).unwrap();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    world.places.place((SERVER, mesh::HBONE_PORT).into(), listener.local_addr().unwrap());
    let shaking = tokio::spawn(async move {
        let (stream, _) = listener.accept().await.unwrap();
        let mut tls = server.acceptor().accept(stream).await.unwrap();
        // TLS, and then not a frame; what the client sends is read, and thought about.
        closed(&mut tls).await;
    });
    expect_refusal(way).await;
    world.client.metric(&["connections_failed_total", "\"CONNECT\"", "} 1"]).await;
    world.stop_pods();
    soon(shaking).await.unwrap();
}
