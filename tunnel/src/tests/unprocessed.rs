//! Requests that a peer says it has not looked at (RFC 9113 sections 6.8 and 8.7) are sent again, once.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use h2::Reason;
use http::Response;
use mesh::Identity;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};

use super::resets::expect_refusal;
use super::world::{SERVER, World, soon};
use crate::CertificateProvider as _;
use crate::tls::Configs;

/// What the peer does next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Turn {
    /// Resets a stream with REFUSED_STREAM.
    Refuse,
    /// Ends a new tunnel with a GOAWAY that leaves out every stream.
    GoAway,
    /// Answers a stream with 200 and a word.
    Serve,
}

/// A world in which somebody else takes the tunnels of the server pod, and does these things in turn.
async fn world(turns: &[Turn]) -> World {
    let world = World::new();
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    world.places.place((SERVER, mesh::HBONE_PORT).into(), listener.local_addr().unwrap());
    let identity = Identity::new("cluster.local", "default", "server");
    let certificate = world.certificates.certificate(&identity).await.unwrap();
    let config = Configs::default().server(&identity, &certificate).unwrap();
    let turns = Arc::new(Mutex::new(VecDeque::from(turns.to_vec())));
    tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let tls = config.acceptor().accept(tcp).await.unwrap();
            tokio::spawn(serve(tls, Arc::clone(&turns)));
        }
    });
    world
}

async fn serve(tls: tokio_rustls::server::TlsStream<TcpStream>, turns: Arc<Mutex<VecDeque<Turn>>>) {
    let mut connection = h2::server::handshake(tls).await.unwrap();
    let next = |only: Option<Turn>| {
        let mut turns = turns.lock().unwrap();
        let fits = only.is_none() || turns.front() == only.as_ref();
        if fits { turns.pop_front() } else { None }
    };
    if next(Some(Turn::GoAway)).is_some() {
        connection.abrupt_shutdown(Reason::NO_ERROR);
    }
    let mut held = Vec::new();
    while let Some(Ok((_, mut respond))) = connection.accept().await {
        match next(None) {
            Some(Turn::Serve) => {
                let mut send = respond.send_response(Response::new(()), false).unwrap();
                send.send_data(Bytes::from_static(b"served"), true).unwrap();
                held.push(send);
            }
            Some(Turn::Refuse) => respond.send_reset(Reason::REFUSED_STREAM),
            other => panic!("a request, and {other:?}"),
        }
    }
}

async fn expect_served(world: &mut World) {
    let mut client = TcpStream::connect(world.way_to((SERVER, 80))).await.unwrap();
    let mut said = String::new();
    soon(client.read_to_string(&mut said)).await.unwrap();
    assert_eq!(said, "served");
}

#[tokio::test]
async fn a_refused_stream_is_opened_again() {
    let mut world = world(&[Turn::Refuse, Turn::Serve]).await;
    expect_served(&mut world).await;
}

#[tokio::test]
async fn a_tunnel_that_goes_away_before_it_has_worked_is_replaced() {
    let mut world = world(&[Turn::GoAway, Turn::Serve]).await;
    expect_served(&mut world).await;
}

#[tokio::test]
async fn who_is_refused_twice_is_told_so() {
    let mut world = world(&[Turn::Refuse, Turn::Refuse]).await;
    expect_refusal(world.way_to((SERVER, 80))).await;
}
