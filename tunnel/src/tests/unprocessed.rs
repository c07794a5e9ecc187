//! Requests that a peer says it has not looked at (RFC 9113 sections 6.8 and 8.7) are sent again, once; and until there is
//! room if they were more than it allows.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use h2::Reason;
use http::Response;
use mesh::Identity;
use tokio::io::AsyncReadExt;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::resets::expect_refusal;
use super::world::{SERVER, World, soon};
use crate::CertificateProvider as _;
use crate::tls::{Configs, Server};

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
    let (config, listener) = stand_in(&world).await;
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

/// What somebody needs who stands in for the server pod: its certificate, and where its tunnels arrive.
async fn stand_in(world: &World) -> (Server, TcpListener) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    world.places.place((SERVER, mesh::HBONE_PORT).into(), listener.local_addr().unwrap());
    let identity = Identity::new("cluster.local", "default", "server");
    let certificate = world.certificates.certificate(&identity).await.unwrap();
    (Configs::default().server(&identity, &certificate).unwrap(), listener)
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

/// A world in which somebody else takes the tunnels of the server pod, `room` streams on each, and says nothing before
/// there are `all` of them.
async fn narrow_world(room: u32, all: usize) -> World {
    let world = World::new();
    let (config, listener) = stand_in(&world).await;
    let (came, _) = watch::channel(0);
    tokio::spawn(async move {
        loop {
            let (tcp, _) = listener.accept().await.unwrap();
            let tls = config.acceptor().accept(tcp).await.unwrap();
            let came = came.clone();
            tokio::spawn(async move {
                let mut builder = h2::server::Builder::new();
                let builder = builder.max_concurrent_streams(room);
                let mut connection = builder.handshake::<_, Bytes>(tls).await.unwrap();
                while let Some(Ok((_, mut respond))) = connection.accept().await {
                    came.send_modify(|came| *came += 1);
                    let mut came = came.subscribe();
                    tokio::spawn(async move {
                        came.wait_for(|came| *came >= all).await.unwrap();
                        let mut send = respond.send_response(Response::new(()), false).unwrap();
                        send.send_data(Bytes::from_static(b"served"), true).unwrap();
                    });
                }
            });
        }
    });
    world
}

#[tokio::test]
async fn more_than_a_tunnel_has_room_for_are_spread_before_any_has_worked() {
    const ROOM: u32 = 3;
    const ALL: usize = 20;
    let mut world = narrow_world(ROOM, ALL).await;
    let way = world.way_to((SERVER, 80));
    let mut clients = tokio::task::JoinSet::new();
    for _ in 0..ALL {
        clients.spawn(async move {
            let mut client = TcpStream::connect(way).await.unwrap();
            let mut said = String::new();
            soon(client.read_to_string(&mut said)).await.map(|_| said)
        });
    }
    for said in clients.join_all().await {
        assert_eq!(said.unwrap(), "served");
    }
}

#[tokio::test]
async fn a_peer_that_has_room_for_nobody_is_not_dialled_for_ever() {
    let mut world = narrow_world(0, 1).await;
    expect_refusal(world.way_to((SERVER, 80))).await;
}
