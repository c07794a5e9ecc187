//! Readers that stop reading, and their neighbours on the same tunnel.

use std::net::SocketAddr;
use std::time::Duration;

use socket2::{Domain, Socket, Type};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::world::{SERVER, World, eventually, soon};
use crate::{Config, PoolConfig};

/// A world in which everything goes through one tunnel.
fn world() -> World {
    let pool = PoolConfig { connections: 1, ..PoolConfig::default() };
    World::configured(Config { pool, ..Config::default() }, |_, _| {})
}

/// What the kernel keeps for a socket: little, so that a reader that stops is soon felt, but some of loopback's packets,
/// which have 64 KiB, lest it has to wait for timers.
const KEPT: usize = 256 << 10;

/// The server pod's application.
fn app(world: &World, port: u16) -> TcpListener {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(KEPT).unwrap();
    socket.set_nonblocking(true).unwrap();
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).unwrap();
    socket.listen(256).unwrap();
    let listener = TcpListener::from_std(socket.into()).unwrap();
    world.places.place((SERVER, port).into(), listener.local_addr().unwrap());
    listener
}

fn client(way: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(KEPT).unwrap();
    socket.connect(&way.into()).unwrap();
    socket.set_nonblocking(true).unwrap();
    TcpStream::from_std(socket.into()).unwrap()
}

/// Writes until nothing has been taken for a while.
async fn fill(stream: &mut TcpStream) -> usize {
    let chunk = vec![0; 256 << 10];
    let mut taken = 0;
    while let Ok(count) = tokio::time::timeout(Duration::from_millis(1000), stream.write(&chunk)).await {
        taken += count.unwrap();
    }
    taken
}

/// Sends 8 MiB from one end to the other.
async fn flows(mut from: TcpStream, mut to: TcpStream) {
    let length = 8 << 20;
    let send = async {
        from.write_all(&vec![7; length]).await.unwrap();
        from.shutdown().await.unwrap();
    };
    let mut received = Vec::new();
    soon(async { tokio::join!(send, async { to.read_to_end(&mut received).await.unwrap() }) }).await;
    assert_eq!(received.len(), length);
}

/// A connection: who writes, and who reads.
async fn connected(way: SocketAddr, app: &TcpListener, upwards: bool) -> (TcpStream, TcpStream) {
    let client = client(way);
    let (accepted, _) = soon(app.accept()).await.unwrap();
    if upwards { (client, accepted) } else { (accepted, client) }
}

/// Connections that are full in one direction: what each was sent, who writes, and who does not read.
async fn stalled(
    number: usize,
    way: SocketAddr,
    app: &TcpListener,
    upwards: bool,
) -> Vec<(usize, TcpStream, TcpStream)> {
    let mut filling = tokio::task::JoinSet::new();
    for _ in 0..number {
        let (mut writer, reader) = connected(way, app, upwards).await;
        filling.spawn(async move { (fill(&mut writer).await, writer, reader) });
    }
    filling.join_all().await
}

/// Lets `number` connections fill up in one direction, then has one flow in both.
async fn among(number: usize, upwards: bool) {
    let mut world = world();
    let app = app(&world, 80);
    let way = world.way_to((SERVER, 80));
    let filled = stalled(number, way, &app, upwards).await;
    assert_eq!(world.client.tunnels(), 1);
    let least = filled.iter().map(|(taken, ..)| *taken).min().unwrap();
    assert!(least > 64 << 10, "a stream got {least} bytes");
    for flows_upwards in [true, false] {
        let (from, to) = connected(way, &app, flows_upwards).await;
        flows(from, to).await;
    }
    assert_eq!(world.client.tunnels(), 1);
    // Who begins to read again gets all that was sent.
    for (taken, mut writer, mut reader) in filled.into_iter().take(2) {
        let rest = async { writer.shutdown().await.unwrap() };
        let mut received = Vec::new();
        soon(async { tokio::join!(rest, async { reader.read_to_end(&mut received).await.unwrap() }) }).await;
        assert_eq!(received.len(), taken);
    }
}

#[tokio::test]
async fn eight_applications_that_do_not_read_leave_the_ninth_its_share() {
    among(8, true).await;
}

#[tokio::test]
async fn eight_clients_that_do_not_read_leave_the_ninth_its_share() {
    among(8, false).await;
}

#[tokio::test]
async fn two_dozen_that_do_not_read_are_no_more_than_a_tunnel_can_bear() {
    among(24, true).await;
}

/// What has been read to the last byte before its neighbours stop reading, and is less than what a window is widened again for, but
/// more than the window that is left then: it must not count for ever.
async fn narrowed_around(upwards: bool) {
    let mut world = world();
    let app = app(&world, 80);
    let way = world.way_to((SERVER, 80));
    let (mut from, mut to) = connected(way, &app, upwards).await;
    let bytes = vec![7; 1 << 20];
    let mut passed = bytes.clone();
    let (sent, received) =
        soon(async { tokio::join!(from.write_all(&bytes), to.read_exact(&mut passed)) }).await;
    assert!(sent.is_ok() && received.is_ok(), "{sent:?} {received:?}");
    let _stalled = stalled(24, way, &app, upwards).await;
    assert_eq!(world.client.tunnels(), 1);
    flows(from, to).await;
}

#[tokio::test]
async fn a_connection_goes_on_to_an_application_beside_two_dozen_that_have_stopped_reading() {
    narrowed_around(true).await;
}

#[tokio::test]
async fn a_connection_goes_on_to_a_client_beside_two_dozen_that_have_stopped_reading() {
    narrowed_around(false).await;
}

#[tokio::test]
async fn a_tunnel_on_which_somebody_waits_is_left_to_itself() {
    let mut world = World::new();
    let app = app(&world, 80);
    let way = world.way_to((SERVER, 80));
    let mut stuck = client(way);
    let (_reader, _) = soon(app.accept()).await.unwrap();
    fill(&mut stuck).await;
    assert_eq!(world.client.tunnels(), 1);
    // This one may still share it, while the next is on its way.
    let _first = client(way);
    soon(app.accept()).await.unwrap();
    eventually(|| world.client.tunnels() == 2).await;
    let _second = client(way);
    soon(app.accept()).await.unwrap();
    assert_eq!(world.client.tunnels(), 2);
}
