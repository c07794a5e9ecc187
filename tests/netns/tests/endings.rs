//! What one end does, the other end sees: a finished half, a reset, the client's address; on every way into and out of a pod.

use std::io::Write as _;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::path::Path;

use anyhow::{Context as _, Result, ensure};
use harness::Pod;
use netns_tests::sockets::{accept, expect, finish, listen, read_to_end, read_to_reset, reset};
use netns_tests::{LIMIT, World, at};

const PORT: u16 = 9000;

/// A way that a connection may take.
struct Way<'a> {
    about: &'static str,
    from: &'a Pod,
    to: &'a Pod,
    listener: TcpListener,
}

/// Every way between pods: which of both is in the mesh decides what is between them.
fn ways(world: &World) -> Result<Vec<Way<'_>>> {
    let listener = |pod: &Pod| listen(pod.netns(), PORT);
    let way = |about, from, to| -> Result<Way<'_>> { Ok(Way { about, from, to, listener: listener(to)? }) };
    Ok(vec![
        way("a tunnel between nodes", &world.client, &world.server)?,
        way("a tunnel on one node", &world.server, &world.neighbour)?,
        way("out of the mesh", &world.client, &world.plain)?,
    ])
}

/// Runs `check` with both ends of a new connection, in both families and each way.
fn on_every_way(check: impl Fn(&TcpStream, &TcpStream) -> Result<()>) -> Result<()> {
    on_every_way_with(|client, server| check(&client, &server))
}

fn on_every_way_with(check: impl Fn(TcpStream, TcpStream) -> Result<()>) -> Result<()> {
    let world = World::new()?;
    let mut ways = ways(&world)?;
    // Into the mesh in plaintext, to the listener that the first way has.
    let inbound = listen(world.server.netns(), PORT + 1)?;
    ways.push(Way {
        about: "into the mesh in plaintext",
        from: &world.plain,
        to: &world.server,
        listener: inbound,
    });
    for way in &ways {
        let port = way.listener.local_addr()?.port();
        for target in at(way.to.addresses(), port) {
            let context = || format!("{}, to {target}", way.about);
            let (client, server) = pair(way, target).with_context(context)?;
            check(client, server).with_context(context)?;
        }
    }
    outside(&world, &check)
}

/// From a machine that knows of no mesh, and to one.
fn outside(world: &World, check: &impl Fn(TcpStream, TcpStream) -> Result<()>) -> Result<()> {
    let netns: &Path = &world.outside.netns;
    let (inside, beyond) = (listen(world.server.netns(), PORT + 2)?, listen(netns, PORT)?);
    for (target, own) in at(world.server.addresses(), PORT + 2).into_iter().zip(world.outside_ips()) {
        let client = harness::inside::in_netns(netns, || harness::client::connect(target, LIMIT))??;
        let (server, peer) = accept(&inside)?;
        ensure!(peer.ip() == own, "{own} was seen as {peer}");
        check(client, server).with_context(|| format!("from outside to {target}"))?;
    }
    for (target, own) in at(world.outside_ips(), PORT).into_iter().zip(world.client.addresses()) {
        let client = world.client.connect(target, LIMIT)??;
        let (server, peer) = accept(&beyond)?;
        ensure!(peer.ip() == own, "{own} was seen as {peer}");
        check(client, server).with_context(|| format!("out of the pod to {target}"))?;
    }
    Ok(())
}

/// Both ends; each sees the other's address as it is.
fn pair(way: &Way<'_>, target: SocketAddr) -> Result<(TcpStream, TcpStream)> {
    let client = way.from.connect(target, LIMIT)??;
    let (server, peer) = accept(&way.listener)?;
    let own: IpAddr = client.local_addr()?.ip();
    ensure!(client.peer_addr()? == target, "{target} was seen as {}", client.peer_addr()?);
    ensure!(peer.ip() == own, "{own} was seen as {peer}");
    Ok((client, server))
}

/// Something has gone each way, so that the connection stands from end to end.
fn exchange(mut client: &TcpStream, mut server: &TcpStream) -> Result<()> {
    client.write_all(b"ping")?;
    expect(server, b"ping")?;
    server.write_all(b"pong")?;
    expect(client, b"pong")
}

#[test]
fn a_client_that_has_said_all_still_hears_the_answer() -> Result<()> {
    on_every_way(|client, mut server| {
        exchange(client, server)?;
        let mut sender = client;
        sender.write_all(b"last words")?;
        finish(client)?;
        ensure!(read_to_end(server)? == b"last words");
        server.write_all(b"late answer")?;
        finish(server)?;
        ensure!(read_to_end(client)? == b"late answer");
        Ok(())
    })
}

#[test]
fn a_server_that_has_said_all_still_hears_the_client() -> Result<()> {
    on_every_way(|client, server| {
        let mut sender = server;
        sender.write_all(b"greeting")?;
        finish(server)?;
        ensure!(read_to_end(client)? == b"greeting");
        let mut sender = client;
        sender.write_all(b"late request")?;
        finish(client)?;
        ensure!(read_to_end(server)? == b"late request");
        Ok(())
    })
}

#[test]
fn a_reset_of_the_client_is_a_reset_to_the_server() -> Result<()> {
    on_every_way_with(|client, server| {
        exchange(&client, &server)?;
        reset(client)?;
        read_to_reset(&server)
    })
}

#[test]
fn a_reset_of_the_server_is_a_reset_to_the_client() -> Result<()> {
    on_every_way_with(|client, server| {
        exchange(&client, &server)?;
        reset(server)?;
        read_to_reset(&client)
    })
}

#[test]
fn a_reset_after_one_half_is_finished_is_a_reset_still() -> Result<()> {
    on_every_way_with(|client, server| {
        exchange(&client, &server)?;
        finish(&client)?;
        ensure!(read_to_end(&server)?.is_empty());
        reset(server)?;
        read_to_reset(&client)
    })?;
    on_every_way_with(|client, server| {
        exchange(&client, &server)?;
        finish(&server)?;
        ensure!(read_to_end(&client)?.is_empty());
        reset(client)?;
        read_to_reset(&server)
    })
}
