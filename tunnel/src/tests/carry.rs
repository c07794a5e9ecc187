//! Bytes that arrive: whole, in order, with both ends' endings told apart.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use super::world::{World, soon};
use crate::Direction;

#[tokio::test]
async fn a_connection_is_tunnelled_to_the_application_and_counted_on_both_nodes() {
    let mut world = World::new();
    let (mut client, mut app) = world.connected(80).await;
    client.write_all(b"ping").await.unwrap();
    let mut bytes = [0; 4];
    soon(app.read_exact(&mut bytes)).await.unwrap();
    assert_eq!(&bytes, b"ping");
    app.write_all(b"answer").await.unwrap();
    let live = world.server.tunnel.connections();
    assert_eq!(live.len(), 1);
    assert_eq!((live[0].direction, live[0].hbone), (Direction::Inbound, true));
    assert_eq!(live[0].identity.as_ref().unwrap().service_account().as_ref(), "client");
    drop(app);
    let mut answer = String::new();
    soon(client.read_to_string(&mut answer)).await.unwrap();
    assert_eq!(answer, "answer");
    drop(client);
    for (node, reporter) in [(&world.client, "source"), (&world.server, "destination")] {
        let reporter = format!("{{reporter=\"{reporter}\",source_workload=\"client\"");
        for (name, value) in [
            ("connections_closed_total", "1"),
            ("connections_opened_total", "1"),
            ("received_bytes_total", "4"),
            ("sent_bytes_total", "6"),
        ] {
            let value = format!("}} {value}");
            let flags = "response_flags=\"-\",connection_security_policy=\"mutual_tls\"";
            node.metric(&[&format!("istio_tcp_{name}{reporter}"), flags, &value]).await;
        }
    }
}

/// The application answers a client that has finished already.
pub(super) async fn answered_late(world: &mut World) {
    let (mut client, mut app) = world.connected(80).await;
    client.write_all(b"everything").await.unwrap();
    client.shutdown().await.unwrap();
    let mut request = String::new();
    soon(app.read_to_string(&mut request)).await.unwrap();
    assert_eq!(request, "everything");
    app.write_all(b"late answer").await.unwrap();
    drop(app);
    let mut answer = String::new();
    soon(client.read_to_string(&mut answer)).await.unwrap();
    assert_eq!(answer, "late answer");
}

#[tokio::test]
async fn a_finished_request_can_still_be_answered() {
    answered_late(&mut World::new()).await;
}

#[tokio::test]
async fn sixteen_mebibytes_both_ways_at_once_arrive_intact() {
    const LENGTH: usize = 16 << 20;
    let mut world = World::new();
    let (client, app) = world.connected(80).await;
    soon(async { tokio::join!(exchange(client, 3, 7, LENGTH), exchange(app, 7, 3, LENGTH)) }).await;
}

/// Sends a pattern of `seed` and expects that of `other`, at once.
async fn exchange(stream: TcpStream, seed: u8, other: u8, length: usize) {
    let (mut read, mut write) = stream.into_split();
    let send = async move {
        write.write_all(&pattern(seed, length)).await.unwrap();
        write.shutdown().await.unwrap();
    };
    let mut received = Vec::new();
    let (_, count) = tokio::join!(send, read.read_to_end(&mut received));
    assert_eq!(count.unwrap(), length);
    assert!(received == pattern(other, length), "bytes were changed on the way");
}

fn pattern(seed: u8, length: usize) -> Vec<u8> {
    (0..length).map(|at| (at % 251) as u8 ^ seed).collect()
}

#[tokio::test]
async fn what_the_mesh_does_not_know_passes_through() {
    let mut world = World::new();
    let outside = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let destination = ([198, 18, 0, 1], 80).into();
    world.places.place(destination, outside.local_addr().unwrap());
    let mut client = TcpStream::connect(world.way_to(destination)).await.unwrap();
    let (mut accepted, _) = soon(outside.accept()).await.unwrap();
    accepted.write_all(b"hello").await.unwrap();
    drop(accepted);
    let mut text = String::new();
    soon(client.read_to_string(&mut text)).await.unwrap();
    assert_eq!(text, "hello");
    drop(client);
    let unknown = "destination_workload=\"unknown\"";
    world.client.metric(&["connections_closed_total", unknown, "policy=\"unknown\"", "} 1"]).await;
}

#[tokio::test]
async fn plaintext_from_outside_reaches_the_application() {
    let mut world = World::new();
    let app = world.app(80).await;
    let mut client = TcpStream::connect(world.plain_way_to(80)).await.unwrap();
    let (mut accepted, _) = soon(app.accept()).await.unwrap();
    client.write_all(b"plain").await.unwrap();
    client.shutdown().await.unwrap();
    let mut text = String::new();
    soon(accepted.read_to_string(&mut text)).await.unwrap();
    assert_eq!(text, "plain");
}
