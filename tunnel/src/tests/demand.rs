//! Nodes that ask the control plane for what a connection needs.

use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use mesh::route::Key;
use mesh::{NetworkAddress, Store};
use tokio::net::TcpStream;

use super::resets::expect_refusal;
use super::world::{SERVER, World, soon, workload};
use crate::{Config, Demand, Timeouts};

/// A control plane that knows the server, and tells when it is asked.
#[derive(Debug)]
struct Teller {
    store: Arc<Store>,
    asked: Mutex<Vec<Key>>,
    silent: bool,
}

impl Teller {
    fn of(world: &World, silent: bool) -> Arc<Self> {
        world.store.update(|snapshot| {
            let mut editor = snapshot.edit();
            editor.remove_workload(&workload("server", SERVER).uid);
            Some(editor.finish())
        });
        Arc::new(Self { store: Arc::clone(&world.store), asked: Mutex::default(), silent })
    }
}

impl Demand for Teller {
    fn find<'a>(&'a self, key: &'a Key) -> Pin<Box<dyn Future<Output = bool> + Send + 'a>> {
        Box::pin(async move {
            self.asked.lock().unwrap().push(key.clone());
            if self.silent {
                std::future::pending::<()>().await;
            }
            if *key == Key::Address(NetworkAddress::new("", SERVER.into())) {
                self.store.update(|snapshot| {
                    let mut editor = snapshot.edit();
                    editor.insert_workload(workload("server", SERVER));
                    Some(editor.finish())
                });
            }
            true
        })
    }
}

#[tokio::test]
async fn a_destination_that_is_asked_for_is_reached_through_its_tunnel() {
    let mut world = World::new();
    let teller = Teller::of(&world, false);
    world.ask_for_everything(Config::default(), Arc::<Teller>::clone(&teller));
    let app = world.app(80).await;
    let way = world.way_to((SERVER, 80));
    for _ in 0..2 {
        let client = TcpStream::connect(way).await.unwrap();
        drop((soon(app.accept()).await.unwrap(), client));
    }
    assert_eq!(world.client.tunnels(), 1, "it went in plaintext");
    assert_eq!(*teller.asked.lock().unwrap(), [Key::Address(NetworkAddress::new("", SERVER.into()))]);
}

#[tokio::test]
async fn what_nobody_has_passes_and_what_cannot_be_found_out_does_not() {
    let mut world = World::new();
    let teller = Teller::of(&world, false);
    world.ask_for_everything(Config::default(), Arc::<Teller>::clone(&teller));
    // Nobody of the mesh: its listener is found where any address is.
    let outside = std::net::Ipv4Addr::new(192, 0, 2, 7);
    let app = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    world.places.place((outside, 80).into(), app.local_addr().unwrap());
    let client = TcpStream::connect(world.way_to((outside, 80))).await.unwrap();
    drop((soon(app.accept()).await.unwrap(), client));

    let mut world = World::new();
    let teller = Teller::of(&world, true);
    let timeouts = Timeouts { demand: Duration::from_millis(100), ..Timeouts::default() };
    world.ask_for_everything(Config { timeouts, ..Config::default() }, teller);
    world.places.place((SERVER, 80).into(), app.local_addr().unwrap());
    expect_refusal(world.way_to((SERVER, 80))).await;
    assert_eq!(world.client.tunnels(), 0);
}
