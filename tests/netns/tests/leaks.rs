//! Ten thousand connections, left in every state that there is, leave nothing behind: no socket, no descriptor, no entry.

use std::io::{ErrorKind, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, anyhow, ensure};
use harness::inside::in_netns;
use harness::wait::eventually_ok;
use harness::{Agent, Pod};
use netns_tests::kernel::descriptors;
use netns_tests::peer::{Peer, Signer, in_an_hour};
use netns_tests::sockets::{connections, deaf, finish, listen, reset};
use netns_tests::{Bare, HTTP, LIMIT, World, at, lock, metric, metric_sum, until_answered};
use rustls::pki_types::ServerName;

/// Limits short enough for a test; those that TLS of honest peers needs are long enough for a busy machine.
const LIMITS: [&str; 10] = [
    "--first-bytes-timeout=2s",
    "--tls-handshake-timeout=3s",
    "--http2-handshake-timeout=3s",
    "--first-request-timeout=2s",
    "--unused-tunnel-timeout=2s",
    "--connect-timeout=3s",
    "--answer-timeout=5s",
    "--half-close-timeout=2s",
    "--stalled-timeout=2s",
    "--idle-timeout=8s",
];
/// What comes of all limits together, and of the minute that the kernel gives to what was closed in good order.
const SETTLED: Duration = Duration::from_secs(150);
const HBONE: u16 = 15008;
/// Takes connections and does nothing with them.
const HOLD: u16 = 9100;
/// Never answers.
const DEAF: u16 = 9101;
/// Connections at once in the making.
const BATCH: usize = 250;

/// Takes every connection and holds it, half-closed if it is told to.
struct Holder {
    held: Arc<Mutex<Vec<TcpStream>>>,
    half: Arc<AtomicBool>,
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Holder {
    fn new(pod: &Pod, port: u16) -> Result<Self> {
        let listener: TcpListener = listen(pod.netns(), port)?;
        listener.set_nonblocking(true)?;
        let (held, half, stop) = (Arc::default(), Arc::new(AtomicBool::new(false)), Arc::default());
        let mut holder = Self { held, half, stop, thread: None };
        let (held, half, stop) =
            (Arc::clone(&holder.held), Arc::clone(&holder.half), Arc::clone(&holder.stop));
        holder.thread = Some(std::thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                match listener.accept() {
                    Ok((stream, _)) => {
                        if half.load(Ordering::Relaxed) {
                            // One that is gone already is as good.
                            let _ = stream.shutdown(std::net::Shutdown::Write);
                        }
                        lock(&held).push(stream);
                    }
                    Err(_) => std::thread::park_timeout(Duration::from_millis(1)),
                }
            }
        }));
        Ok(holder)
    }

    fn count(&self) -> usize {
        lock(&self.held).len()
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // What it panicked of has been said.
            let _ = thread.join();
        }
    }
}

/// Opens so many connections in batches, does the same to each, and returns every other one; the rest is dropped.
fn open(
    from: &Path,
    to: [SocketAddr; 2],
    count: usize,
    act: impl Fn(&mut TcpStream) -> Result<()> + Sync,
) -> Result<Vec<TcpStream>> {
    let mut kept = Vec::new();
    for batch in 0..count.div_ceil(BATCH) {
        let size = BATCH.min(count - batch * BATCH);
        let opened = in_netns(from, || -> Result<Vec<TcpStream>> {
            let connect = |(number, to): (usize, &SocketAddr)| {
                let mut stream = match TcpStream::connect_timeout(to, LIMIT) {
                    Ok(stream) => stream,
                    // One of too many handshakes: it was taken, and cut before we looked.
                    Err(error) if error.kind() == ErrorKind::ConnectionReset && to.port() == HBONE => {
                        return Ok(None);
                    }
                    Err(error) => return Err(error).with_context(|| format!("number {number} to {to}")),
                };
                act(&mut stream)?;
                Ok(Some(stream))
            };
            (0..size).zip(to.iter().cycle()).filter_map(|one| connect(one).transpose()).collect()
        })??;
        kept.extend(opened.into_iter().step_by(2));
    }
    Ok(kept)
}

/// Writes until nothing more is taken.
fn flood(stream: &mut TcpStream) -> Result<()> {
    stream.set_write_timeout(Some(Duration::from_millis(200)))?;
    let bytes = [7; 64 << 10];
    // Where the kernel would take any amount, this is enough to fill what is between both ends.
    for _ in 0..512 {
        match stream.write(&bytes) {
            Ok(_) => {}
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
            // It was cut already.
            Err(_) => break,
        }
    }
    Ok(())
}

/// A tunnel whose client has proven who it is, and asks for nothing.
fn tunnels(
    world: &World,
    count: usize,
) -> Result<(tokio::runtime::Runtime, Vec<h2::client::SendRequest<bytes::Bytes>>)> {
    let dir = world.run.dir().join("ca");
    let peer = Peer::new(&Signer::Mesh(&dir), "spiffe://cluster.local/ns/demo/sa/client", in_an_hour())?;
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build()?;
    let mut kept = Vec::new();
    for (_, to) in (0..count).zip(at(world.server.addresses(), HBONE).iter().cycle()) {
        let stream = in_netns(world.plain.netns(), || TcpStream::connect_timeout(to, LIMIT))??;
        stream.set_nonblocking(true)?;
        let client = runtime.block_on(async {
            let stream = tokio::net::TcpStream::from_std(stream)?;
            let name = ServerName::try_from("peer.invalid")?;
            let tls = tokio_rustls::TlsConnector::from(peer.tls()).connect(name, stream);
            let tls = tokio::time::timeout(LIMIT, tls).await??;
            let (client, connection) = h2::client::handshake(tls).await?;
            tokio::spawn(connection);
            Ok::<_, anyhow::Error>(client)
        })?;
        kept.push(client);
    }
    Ok((runtime, kept))
}

fn sockets(agent: &Agent) -> Result<usize> {
    Ok(descriptors(agent)?.iter().filter(|target| target.starts_with("socket:")).count())
}

/// Nothing is there that was not there before.
fn settled(world: &World, before: [usize; 2]) -> Result<()> {
    for pod in [&world.client, &world.server] {
        let left = connections(pod.netns())?;
        ensure!(
            left.is_empty(),
            "{} connections in {}: {:?}",
            left.len(),
            pod.name(),
            left.iter().take(5).collect::<Vec<_>>()
        );
    }
    for (agent, before) in [&world.agent1, &world.agent2].into_iter().zip(before) {
        let now = sockets(agent)?;
        ensure!(now <= before, "{now} sockets, {before} at first");
        ensure!(
            metric(agent, "culvert_connections_live", &[])? == 0.0,
            "the table of connections is not empty"
        );
        ensure!(metric_sum(agent, "istio_tcp_sockets_open", &[])? == 0.0, "records are open");
    }
    Ok(())
}

#[test]
fn ten_thousand_connections_in_every_state_leave_nothing_behind() -> Result<()> {
    linux::limits::raise_descriptors()?;
    let world = Bare::new()?.enrol_with(&LIMITS)?;
    let (client, plain) = (world.client.netns(), world.plain.netns());
    let server = |port| at(world.server.addresses(), port);
    let holder = Holder::new(&world.server, HOLD)?;
    let _deaf = deaf(world.server.netns(), DEAF)?;
    eventually_ok("both agents to be at rest", SETTLED, || settled(&world, [usize::MAX; 2]))?;
    // Those of the deaf server's own are not the agent's.
    let before = [sockets(&world.agent1)?, sockets(&world.agent2)?];

    let began = Instant::now();
    let nothing = |_: &mut TcpStream| Ok(());
    let mut kept = Vec::new();
    // A server that never reads. First: once there are more than a pod may have, the next ones are cut before they stall.
    kept.extend(open(client, server(HOLD), 20, flood)?);
    // Opened, and dropped or left without a byte.
    kept.extend(open(client, server(HTTP), 2580, nothing)?);
    kept.extend(open(plain, server(HTTP), 500, nothing)?);
    // TLS and HTTP/2 done, and nothing asked for.
    let idle_tunnels = tunnels(&world, 300)?;
    // A CONNECT to which there is no answer, for the application does not take the connection.
    kept.extend(open(client, server(DEAF), 1000, nothing)?);
    // Half-closed by the client, in a tunnel and in plaintext, and by the server.
    kept.extend(open(client, server(HOLD), 1000, |stream| finish(stream))?);
    kept.extend(open(plain, server(HOLD), 300, |stream| finish(stream))?);
    holder.half.store(true, Ordering::Relaxed);
    kept.extend(open(client, server(HOLD), 700, nothing)?);
    holder.half.store(false, Ordering::Relaxed);
    // Ended by a reset in the middle.
    for stream in open(client, server(HOLD), 600, |stream| Ok(stream.write_all(b"half a requ")?))? {
        reset(stream)?;
    }
    // No TLS at all, and TLS that is begun and not gone on with. Last: they take the turns of others.
    kept.extend(open(plain, server(HBONE), 1500, nothing)?);
    kept.extend(open(plain, server(HBONE), 1500, |stream| {
        // One that was cut already is as good.
        let _ = stream.write_all(b"\x16\x03\x01\x02\x00\x01");
        Ok(())
    })?);
    let opened = began.elapsed();
    println!("10,000 connections; {} held by their clients, {} by the server", kept.len(), holder.count());

    // All that were kept on either side are held throughout: it is the agents that end them, and not this test.
    eventually_ok("all to be gone", SETTLED, || settled(&world, before))?;
    println!("opened in {opened:?}, gone in {:?}", began.elapsed() - opened);
    for reason in ["half_closed", "stalled", "idle"] {
        let cut = metric_sum(&world.agent2, "culvert_connections_cut_total", &[("reason", reason)])?;
        ensure!(cut > 0.0, "none was cut for being {reason}");
    }
    world.agent2.wait_for_log(&["connection complete", &format!(":{DEAF}"), "timed out"], LIMIT)?;
    for reason in ["silent", "tls"] {
        ensure!(
            metric_sum(&world.agent2, "culvert_inbound_refusals_total", &[("reason", reason)])? > 0.0,
            "{reason}"
        );
    }
    drop((kept, idle_tunnels, holder));
    for target in server(HTTP) {
        ensure!(
            until_answered(&world.client, target).map_err(|error| anyhow!("afterwards: {error:#}"))?.status
                == 200
        );
    }
    Ok(())
}
