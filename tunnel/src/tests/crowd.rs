//! Many brief connections at once, which are served beside all others.

use std::net::SocketAddr;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinHandle;

use super::world::{Node, SERVER, World, eventually, soon};
use crate::pace::WINDOW;
use crate::seat::Duty;

/// At once: more than make a crowd, and than one tunnel carries.
const MANY: usize = 300;

/// An application that says what it hears.
fn echo(app: TcpListener) -> JoinHandle<()> {
    tokio::spawn(async move {
        loop {
            let (mut client, _) = app.accept().await.unwrap();
            tokio::spawn(async move {
                let (mut read, mut write) = client.split();
                let _ = tokio::io::copy(&mut read, &mut write).await;
            });
        }
    })
}

/// So many connections at once, each of which is answered.
async fn open(way: SocketAddr, number: usize) {
    let mut clients = Vec::with_capacity(number);
    for _ in 0..number {
        clients.push(TcpStream::connect(way).await.unwrap());
    }
    for client in &mut clients {
        client.write_all(b"?").await.unwrap();
    }
    for client in &mut clients {
        assert_eq!(client.read_u8().await.unwrap(), b'?', "its connection was lost");
    }
}

/// What the workers for crowds of a node are busy with.
fn tasks(node: &Node) -> usize {
    let workers = node.tunnel.workers.seats().of(Duty::Crowds);
    workers.iter().map(|worker| worker.runtime.metrics().num_alive_tasks()).sum()
}

#[tokio::test]
async fn a_crowd_is_served_beside_the_others_and_none_of_it_is_lost() {
    let mut world = World::new();
    let app = echo(world.app(80).await);
    let way = world.way_to((SERVER, 80));
    soon(open(way, 1)).await;
    let quiet = [tasks(&world.client), tasks(&world.server)];
    soon(open(way, 5)).await;
    assert_eq!([tasks(&world.client), tasks(&world.server)], quiet, "five are no crowd");
    let held = |world: &World| {
        let pools = world.client.tunnel.workers.seats().of(Duty::Crowds);
        pools.iter().map(|worker| worker.pool.tunnels()).sum::<usize>()
    };
    assert_eq!(held(&world), 0);
    // However slow this machine is just now, once so many come in time.
    soon(async {
        while held(&world) == 0 || tasks(&world.server) <= quiet[1] {
            open(way, MANY).await;
        }
    })
    .await;
    // It is over: the listener comes home with the next one, and what comes is served as ever.
    let crowded = tasks(&world.client);
    tokio::time::sleep(WINDOW * 3).await;
    soon(open(way, 3)).await;
    eventually(|| tasks(&world.client) < crowded).await;
    app.abort();
}
