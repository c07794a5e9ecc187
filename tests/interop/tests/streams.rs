//! What goes through an Envoy arrives whole, and each half of a connection ends by itself.

use std::net::{SocketAddr, TcpListener};
use std::thread::JoinHandle;
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use harness::mesh_file::Workload;
use harness::{Pod, client};
use interop_tests::config::{Client, Server};
use interop_tests::load::{echoed, expect_pattern, send_pattern};
use interop_tests::{ECHO, Envoy, HBONE, World, identity};

/// Of all connections together: far more than the sockets on the way hold.
const BULK: u64 = 24 << 20;
/// Longest time in which nothing moves: on a busy machine each of five processes on the way must get its turn.
const STALL: Duration = Duration::from_secs(60);
/// Connections at once.
const CONNECTIONS: u64 = 4;

/// Several connections that carry as much in both directions at once, each ended by the client's half first.
fn bulk(from: &Pod, to: SocketAddr) -> Result<()> {
    std::thread::scope(|scope| {
        let streams: Vec<_> = (0..CONNECTIONS)
            .map(|_| {
                scope.spawn(move || -> Result<()> {
                    let stream = from.connect(to, client::LIMIT)??;
                    stream.set_read_timeout(Some(STALL))?;
                    stream.set_write_timeout(Some(STALL))?;
                    echoed(&stream, BULK / CONNECTIONS)
                })
            })
            .collect();
        let mut joined = streams.into_iter().map(|stream| stream.join().map_err(|_| anyhow!("panicked"))?);
        joined.try_for_each(|outcome| outcome.with_context(|| format!("{} to {to}", from.name())))
    })
}

#[test]
fn bulk_through_a_waypoint_arrives_whole() -> Result<()> {
    let mut world = World::with_waypoint(false)?;
    world.tell(|world| {
        let _envoy = world.start_waypoint(&world.pods.gate, 100)?;
        world.echo().into_iter().try_for_each(|to| bulk(&world.pods.client, to))
    })
}

#[test]
fn bulk_to_a_server_of_tunnels_arrives_whole() -> Result<()> {
    let mut world = World::new(|pods, mesh| mesh.workloads.push(Workload::of_pod(&pods.gate)))?;
    world.tell(|world| {
        let gate = &world.pods.gate;
        let own = world.credentials("gate")?;
        let clients = vec![identity("client")];
        let server = Server { addresses: gate.addresses(), own: &own, clients, streams: 100 };
        let _envoy = Envoy::start(gate, &server.bootstrap())?;
        let _app = gate.serve_echo(ECHO)?;
        for ip in gate.addresses() {
            bulk(&world.pods.client, SocketAddr::new(ip, ECHO))?;
        }
        // Envoy takes the end of a server's half for the end of the whole; what came before it arrives.
        let target = SocketAddr::new(gate.ipv4().into(), LATE);
        let server = ends_first(gate, target)?;
        let stream = world.pods.client.connect(target, client::LIMIT)??;
        expect_pattern(&stream, LATE_BYTES)?;
        drop(stream);
        server.join().map(drop).map_err(|_| anyhow!("the server panicked"))
    })
}

#[test]
fn bulk_from_a_client_of_tunnels_arrives_whole_and_halves_end_alone() -> Result<()> {
    let mut world = World::new(|_, _| {})?;
    world.tell(|world| {
        let (gate, v1) = (&world.pods.gate, &world.pods.v1);
        let own = world.credentials("gate")?;
        let [echo, late] = [("echo", ECHO), ("late", LATE)].map(|(name, port)| Client {
            name,
            port,
            own: &own,
            peer: SocketAddr::new(v1.ipv4().into(), HBONE),
            accepted: identity("v1"),
            authority: SocketAddr::new(v1.ipv4().into(), port),
        });
        let (to_echo, to_late, target) = (echo.local(), late.local(), late.authority);
        let _envoy = Envoy::start(gate, &Client::bootstrap(&[echo, late]))?;
        bulk(gate, to_echo)?;
        let server = ends_first(v1, target)?;
        let stream = gate.connect(to_late, client::LIMIT)??;
        expect_pattern(&stream, LATE_BYTES)?;
        send_pattern(&stream, LATE_BYTES).context("after the server's end")?;
        server.join().map_err(|_| anyhow!("the server panicked"))?
    })
}

/// Port of a server that ends its half first.
const LATE: u16 = 9001;
/// What it says before, and hears after.
const LATE_BYTES: u64 = 1 << 20;

/// A server that says all it has to say, ends its half, and only then listens to its client.
fn ends_first(pod: &Pod, address: SocketAddr) -> Result<JoinHandle<Result<()>>> {
    let listener = pod.inside(|| TcpListener::bind(address))??;
    Ok(std::thread::spawn(move || {
        let (stream, _) = listener.accept()?;
        stream.set_read_timeout(Some(client::LIMIT))?;
        send_pattern(&stream, LATE_BYTES)?;
        expect_pattern(&stream, LATE_BYTES)
    }))
}
