//! Peers with a certificate of the mesh that use HTTP/2 as a weapon, and pods that want more than their share: what they send is
//! bounded work for the agent, and everybody else is served meanwhile.

use std::io::{ErrorKind, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use harness::{Agent, eventually};
use netns_tests::peer::{Peer, Signer, in_an_hour};
use netns_tests::sockets::connections;
use netns_tests::{Bare, HTTP, LIMIT, World, at, metric, until_answered};
use rustls::pki_types::ServerName;
use rustls::{ClientConnection, StreamOwned};

const HBONE: u16 = 15008;
/// Frames of HTTP/2 (RFC 9113 section 6).
const HEADERS: u8 = 1;
const RST_STREAM: u8 = 3;
const SETTINGS: u8 = 4;
const PING: u8 = 6;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;
/// Streams that are opened and reset.
const RESETS: u32 = 20_000;
/// A flood that is still taken after so many bytes has no end.
const ENDLESS: usize = 64 << 20;
/// Memory, in KiB, that a flood may cost.
const COST: u64 = 64 << 10;

/// A connection of the tests' own making, frame by frame.
struct Raw {
    tls: StreamOwned<ClientConnection, TcpStream>,
}

impl Raw {
    /// Proves itself, and says the first words.
    fn open(world: &World, to: SocketAddr) -> Result<Self> {
        let ca = world.run.dir().join("ca");
        let peer = Peer::new(&Signer::Mesh(&ca), "spiffe://cluster.local/ns/demo/sa/plain", in_an_hour())?;
        let stream = world.plain.connect(SocketAddr::new(to.ip(), HBONE), LIMIT)??;
        let connection = ClientConnection::new(peer.tls(), ServerName::try_from("peer.invalid")?)?;
        let mut raw = Self { tls: StreamOwned::new(connection, stream) };
        raw.tls.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n")?;
        raw.send(&[frame(SETTINGS, 0, 0, &[])])?;
        Ok(raw)
    }

    fn send(&mut self, frames: &[Vec<u8>]) -> std::io::Result<()> {
        self.tls.write_all(&frames.concat())?;
        self.tls.flush()
    }

    /// Reads what has come, and tells whether that is the end of it.
    fn has_ended(&mut self) -> Result<bool> {
        self.tls.sock.set_nonblocking(true)?;
        let mut buffer = [0; 16 << 10];
        let ended = loop {
            match self.tls.read(&mut buffer) {
                Ok(0) => break true,
                Ok(_) => {}
                Err(error) => break error.kind() != ErrorKind::WouldBlock,
            }
        };
        self.tls.sock.set_nonblocking(false)?;
        Ok(ended)
    }
}

fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or_default().to_be_bytes();
    let mut frame = length.get(1..).unwrap_or_default().to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    frame
}

/// `CONNECT authority` as HPACK without indexing (RFC 7541 section 6.2.2): `:method` is 2 of the static table, `:authority` 1.
fn connect(authority: &str) -> Vec<u8> {
    let mut block = vec![2, 7];
    block.extend(b"CONNECT");
    block.extend([1, u8::try_from(authority.len()).unwrap_or_default()]);
    block.extend(authority.bytes());
    block
}

/// Resident memory, KiB.
fn memory(agent: &Agent) -> Result<u64> {
    let pid = agent.pid().context("the agent is not running")?;
    let status = std::fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    line.split_whitespace().next().context("no number")?.parse().context("VmRSS")
}

/// The pod is reached as ever, by who uses tunnels as they are meant.
fn others_are_served(world: &World) -> Result<()> {
    for target in at(world.server.addresses(), HTTP) {
        let attempt = world.client.attempt(target, "/meanwhile")?;
        ensure!(attempt.is_ok(), "{target}: {attempt:?}");
    }
    Ok(())
}

#[test]
fn streams_that_are_opened_and_reset_at_once_cost_no_more_than_a_tunnel() -> Result<()> {
    let mut world = World::new()?;
    others_are_served(&world)?;
    let before = memory(&world.agent2)?;
    for target in at(world.server.addresses(), HTTP) {
        let mut raw = Raw::open(&world, target)?;
        let block = connect(&target.to_string());
        let mut sent = 0;
        for number in 0..RESETS {
            let stream = 2 * number + 1;
            let pair = [
                frame(HEADERS, END_HEADERS, stream, &block),
                frame(RST_STREAM, 0, stream, &8_u32.to_be_bytes()),
            ];
            // Told to go: the agent has had enough.
            if raw.send(&pair).is_err() || (number % 64 == 0 && raw.has_ended()?) {
                break;
            }
            sent += 1;
            if number % 4000 == 0 {
                others_are_served(&world)?;
            }
        }
        println!("{target}: {sent} streams opened and reset");
        ensure!(sent > 0, "not one stream was taken");
    }
    others_are_served(&world)?;
    let after = memory(&world.agent2)?;
    ensure!(after < before + COST, "{before} KiB before, {after} after");
    ensure!(world.agent2.is_running());
    // None of those connections is open still.
    eventually("no connection to be left", LIMIT, || {
        (metric(&world.agent2, "culvert_connections_live", &[]).ok()? == 0.0).then_some(())
    })
}

#[test]
fn headers_without_an_end_end_the_tunnel() -> Result<()> {
    let mut world = World::new()?;
    others_are_served(&world)?;
    let before = memory(&world.agent2)?;
    // Names that are long and new, and fragments of no length at all.
    let mut long = vec![0, 100];
    long.extend([b'a'; 100]);
    long.push(100);
    long.extend([b'b'; 100]);
    for (what, fragment) in [("long", long.repeat(60)), ("empty", Vec::new())] {
        for target in at(world.server.addresses(), HTTP) {
            let mut raw = Raw::open(&world, target)?;
            raw.send(&[frame(HEADERS, 0, 1, &connect(&target.to_string()))])?;
            let (mut sent, mut bytes) = (0, 0);
            let next = frame(CONTINUATION, 0, 1, &fragment);
            while raw.send(std::slice::from_ref(&next)).is_ok() && !raw.has_ended()? {
                (sent, bytes) = (sent + 1, bytes + next.len());
                if bytes > ENDLESS || sent > 1_000_000 {
                    bail!("{what}: {sent} fragments of one header were taken, {bytes} bytes");
                }
            }
            println!("{target}: {sent} {what} fragments, {bytes} bytes");
            others_are_served(&world)?;
        }
    }
    let after = memory(&world.agent2)?;
    ensure!(after < before + COST, "{before} KiB before, {after} after");
    ensure!(world.agent2.is_running());
    Ok(())
}

#[test]
fn a_peer_that_asks_for_answers_and_reads_none_is_left() -> Result<()> {
    let bare = Bare::new()?;
    let mut world = bare.enrol_with(&["--stalled-timeout=5s", "--unused-tunnel-timeout=5s"])?;
    others_are_served(&world)?;
    let (before, mut flooding) = (memory(&world.agent2)?, Vec::new());
    for target in at(world.server.addresses(), HTTP) {
        let mut raw = Raw::open(&world, target)?;
        raw.tls.sock.set_write_timeout(Some(Duration::from_millis(500)))?;
        let pings: Vec<u8> = (0..512).flat_map(|_| frame(PING, 0, 0, &[7; 8])).collect();
        let (mut bytes, began) = (0, Instant::now());
        // Nothing of what comes back is read: in the end the agent does not read either.
        let why = loop {
            match raw.tls.write_all(&pings) {
                Ok(()) if bytes > ENDLESS => {
                    bail!("{bytes} bytes of PINGs were taken, of which no answer was read")
                }
                Ok(()) => bytes += pings.len(),
                Err(error) => break error,
            }
            if began.elapsed() > LIMIT * 6 {
                bail!("still at it after {bytes} bytes");
            }
        };
        println!("{target}: {bytes} bytes of PINGs, then {why}");
        others_are_served(&world)?;
        flooding.push(raw);
    }
    let now = memory(&world.agent2)?;
    ensure!(now < before + COST, "{before} KiB before, {now} now");
    // They answer no PING of the agent's, nor anything else. The kernel of the pod knows of a connection until it is left.
    for raw in &flooding {
        let own = format!(":{:04X} ", raw.tls.sock.local_addr()?.port());
        eventually("the agent to leave", LIMIT * 4, || {
            let open = connections(world.server.netns()).ok()?;
            open.iter().all(|connection| !connection.contains(&own)).then_some(())
        })?;
    }
    ensure!(world.agent2.is_running());
    others_are_served(&world)
}

#[test]
fn a_pod_has_its_share_of_connections_and_takes_nobody_elses() -> Result<()> {
    const SHARE: usize = 12;
    let share = format!("--max-connections-per-pod={SHARE}");
    let world = Bare::new()?.enrol_each([&[&share], &[]])?;
    let refused = || metric(&world.agent1, "culvert_connections_refused_total", &[("reason", "full")]);
    let before = refused()?;
    let mut held = Vec::new();
    // A proof of capture may be under way, which has a place as well.
    let refusal = at(world.server.addresses(), HTTP).iter().cycle().take(SHARE + 1).find_map(|to| {
        match world.neighbour.open_http(*to).and_then(|mut http| http.get("/held").map(|_| http)) {
            Ok(http) => held.push(http),
            Err(error) => return Some(error),
        }
        None
    });
    ensure!(refusal.is_some() && held.len() >= SHARE - 1, "{} of {SHARE}: {refusal:?}", held.len());
    ensure!(refused()? > before, "it is counted");
    world.agent1.wait_for_log(&["connection refused", "as many connections as one pod may have"], LIMIT)?;
    // Its neighbour on the node has its own share, and those that it has go on.
    others_are_served(&world)?;
    for http in &mut held {
        ensure!(http.get("/still")?.status == 200);
    }
    drop(held);
    for target in at(world.server.addresses(), HTTP) {
        until_answered(&world.neighbour, target)?;
    }
    Ok(())
}
