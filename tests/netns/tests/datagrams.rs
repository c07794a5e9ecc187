//! Rows E11 and I8 of the truth table: what is neither TCP nor DNS goes its way, with and without an agent, in both families.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use harness::inside::in_netns;
use harness::ping::ping;
use netns_tests::{LIMIT, World, at};

const PORT: u16 = 5353;

/// Sends what comes back to where it came from; ends with the test's process.
fn echo(netns: &Path, address: SocketAddr) -> Result<()> {
    let socket = in_netns(netns, || UdpSocket::bind(address))?.with_context(|| format!("{address}"))?;
    std::thread::spawn(move || {
        let mut buffer = [0; 256];
        while let Ok((length, from)) = socket.recv_from(&mut buffer) {
            let answer =
                format!("{from} {}", String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()));
            if socket.send_to(answer.as_bytes(), from).is_err() {
                return;
            }
        }
    });
    Ok(())
}

/// A datagram there and back, from an unconnected socket and from a connected one; both ends see each other.
fn exchange(from: &Path, own: IpAddr, to: SocketAddr) -> Result<()> {
    for connected in [false, true] {
        let socket = in_netns(from, || UdpSocket::bind(SocketAddr::new(own, 0)))??;
        socket.set_read_timeout(Some(LIMIT))?;
        let mut buffer = [0; 256];
        let (length, source) = if connected {
            socket.connect(to)?;
            socket.send(b"x")?;
            (socket.recv(&mut buffer).with_context(|| format!("no answer from {to}"))?, socket.peer_addr()?)
        } else {
            socket.send_to(b"x", to)?;
            socket.recv_from(&mut buffer).with_context(|| format!("no answer from {to}"))?
        };
        let answer = String::from_utf8_lossy(buffer.get(..length).unwrap_or_default()).into_owned();
        ensure!(source == to && answer == format!("{} x", socket.local_addr()?), "{answer} from {source}");
    }
    Ok(())
}

fn everything(world: &World) -> Result<()> {
    let outside = world.outside_ips();
    // To a captured pod: from another node's pod, from outside, from its own node.
    let (node4, node6) = world.nodes[0].addresses();
    for (who, from, own) in [
        ("a pod", world.plain.netns(), world.plain.addresses()),
        ("outside", world.outside.netns.as_path(), outside),
        ("its node", world.nodes[0].netns(), [IpAddr::from(node4), IpAddr::from(node6)]),
    ] {
        for (own, to) in own.into_iter().zip(at(world.client.addresses(), PORT)) {
            exchange(from, own, to).with_context(|| format!("{who} to a captured pod"))?;
            in_netns(from, || ping(to.ip(), LIMIT))?.with_context(|| format!("{who} to a captured pod"))?;
        }
    }
    // From a captured pod.
    for (own, to) in world.client.addresses().into_iter().zip(at(outside, PORT)) {
        exchange(world.client.netns(), own, to).context("a captured pod to outside")?;
        world.client.inside(|| ping(to.ip(), LIMIT))?.context("a captured pod to outside")?;
    }
    Ok(())
}

#[test]
fn i8_e11_datagrams_and_echoes_go_their_way_in_and_out_with_and_without_an_agent() -> Result<()> {
    let mut world = World::new()?;
    for to in at(world.client.addresses(), PORT) {
        echo(world.client.netns(), to)?;
    }
    for to in at(world.outside_ips(), PORT) {
        echo(&world.outside.netns, to)?;
    }
    everything(&world)?;
    world.agent1.kill9()?;
    everything(&world).context("with a dead agent")
}
