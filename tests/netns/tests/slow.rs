//! Slow callers on every listener that an agent has: they hold up nobody but themselves.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::inside::in_netns;
use harness::{Pod, eventually};
use netns_tests::{Bare, HTTP, LIMIT, SERVICE, WEB, World, at, ips, until_answered};

/// More than any listener serves at once, but for the pods'.
const CALLERS: usize = 150;
/// What a slow caller has said: nothing, and the beginning of something.
const BEGINNINGS: [&[u8]; 2] = [b"", b"GET /healthz"];
const HBONE: u16 = 15008;
const DNS: u16 = 53;
/// The agent's ports on its node, and what is asked there.
const PORTS: [(u16, &str); 3] = [(15_021, "/healthz/ready"), (15_020, "/metrics"), (15_000, "/config_dump")];

/// Connections that say so much and no more.
fn slow(netns: &std::path::Path, to: SocketAddr, count: usize, beginning: &[u8]) -> Result<Vec<TcpStream>> {
    in_netns(netns, || {
        let connect = |_| {
            let mut stream = TcpStream::connect_timeout(&to, LIMIT).with_context(|| to.to_string())?;
            // One that was cut already is as good.
            let _ = stream.write_all(beginning);
            Ok(stream)
        };
        (0..count).map(connect).collect()
    })?
}

/// The pod does what pods do: connects within the mesh, through a service, and is reached.
fn is_served(world: &World, from: &Pod) -> Result<()> {
    for to in at(world.server.addresses(), HTTP).into_iter().chain(at(ips(WEB), SERVICE)) {
        let attempt = from.attempt(to, "/")?;
        ensure!(attempt.is_ok(), "{} to {to}: {attempt:?}", from.name());
    }
    Ok(())
}

#[test]
fn callers_who_say_nothing_keep_nobody_from_the_agents_ports() -> Result<()> {
    let world = World::new()?;
    let node = world.nodes[0].netns();
    let mut held = Vec::new();
    for beginning in BEGINNINGS {
        for (port, path) in PORTS {
            held.extend(slow(node, (Ipv4Addr::LOCALHOST, port).into(), CALLERS, beginning)?);
            let reply = world
                .agent1
                .get(port, path)
                .with_context(|| format!("{port} behind {CALLERS} slow callers"))?;
            ensure!(reply.status == 200, "{port}{path}: {reply:?}");
        }
    }
    // They are there still, as far as they are concerned.
    for (port, path) in PORTS {
        let reply = world.agent1.get(port, path)?;
        ensure!(reply.status == 200, "{port}{path}: {reply:?}");
    }
    drop(held);
    is_served(&world, &world.client)
}

#[test]
fn callers_who_say_nothing_on_the_agents_sockets_hold_up_no_plugin_for_long() -> Result<()> {
    let mut world = World::new()?;
    let [n1, _] = world.nodes.clone();
    let mut held: Vec<OwnedFd> = Vec::new();
    for name in ["cni.sock", "admin.sock", "handover.sock"] {
        for _ in 0..CALLERS / 3 {
            // A queue that is full takes no more; so much the better.
            if let Ok(silent) = UnixStream::connect(n1.agent_dir().join(name)) {
                held.push(silent.into());
            }
        }
    }
    // A pod that the plugin brings waits for those before it, and is captured.
    world.mesh.enroll.push(harness::mesh_file::Enroll::by_cni("late", "demo", &n1));
    world.write_mesh()?;
    world.agent1.wait_for_log(&["mesh file applied", "pods=3"], LIMIT)?;
    let late =
        n1.add_pod("late", "demo").map_err(|error| anyhow::anyhow!("behind silent callers: {error:?}"))?;
    world.agent1.wait_for_log(&["pod enrolled", "demo/late"], LIMIT)?;
    drop(held);
    is_served(&world, &world.client)?;
    late.remove().map_err(|error| anyhow::anyhow!("{error:?}"))
}

#[test]
fn callers_who_say_nothing_to_a_pod_are_left_and_hold_up_none_of_its_others() -> Result<()> {
    let limits = ["--first-bytes-timeout=2s", "--tls-handshake-timeout=4s", "--idle-timeout=10s"];
    let world = Bare::new()?.enrol_with(&limits)?;
    is_served(&world, &world.client)?;
    let outside: [IpAddr; 2] = world.outside_ips();
    let mut held = Vec::new();
    for ip in world.server.addresses() {
        // To the tunnel's port: nothing; the beginning of TLS; and what is no TLS.
        for beginning in [&b""[..], b"\x16\x03\x01\x02\x00\x01", b"GET / HTTP/1.1\r\n"] {
            held.extend(slow(world.plain.netns(), SocketAddr::new(ip, HBONE), CALLERS / 3, beginning)?);
        }
        // In plaintext to the application, which waits as long as it likes.
        held.extend(slow(world.plain.netns(), SocketAddr::new(ip, HTTP), CALLERS / 3, b"GET /")?);
    }
    // From the pod: to nobody's resolver, with the beginning of a question, and to a server.
    for ip in world.server.addresses() {
        held.extend(slow(world.client.netns(), SocketAddr::new(ip, HTTP), CALLERS / 3, b"GET /")?);
    }
    for ip in outside {
        let resolver = in_netns(&world.outside.netns, || std::net::TcpListener::bind((ip, DNS)))??;
        held.extend(slow(
            world.client.netns(),
            SocketAddr::new(ip, DNS),
            CALLERS / 3,
            b"\x00\x20\x12\x34\x01",
        )?);
        drop(resolver);
    }
    is_served(&world, &world.client)?;
    is_served(&world, &world.neighbour)?;
    // They are left one by one, though none of them leaves.
    eventually("the agents to have no connection of theirs", Duration::from_secs(60), || {
        let live = |agent| netns_tests::metric(agent, "culvert_connections_live", &[]).ok();
        (live(&world.agent1)? == 0.0 && live(&world.agent2)? == 0.0).then_some(())
    })?;
    drop(held);
    for target in at(world.server.addresses(), HTTP) {
        until_answered(&world.client, target)?;
    }
    Ok(())
}
