//! Each kind of connection of a captured pod goes where it should.

use std::io::ErrorKind;
use std::net::SocketAddr;

use anyhow::{Result, bail, ensure};
use linux::netns::Netns;
use redirect::Direction;

use super::{Progress, connected, heard};
use crate::agent::who;
use crate::call::{Call, call, is_line, line};
use crate::world::{DEVICE, Family, HTTP, IPV6, World};

/// Nobody listens there, in the pod.
const CLOSED: u16 = 9;
/// The tunnel's port.
const HBONE: u16 = 15008;

/// All kinds, with the pod captured by the agent of this name.
pub(super) fn all(progress: &mut Progress, world: &World, agent: &str) -> Result<()> {
    for &family in world.families {
        outbound(progress, world, agent, family)?;
        left_alone(progress, world, family)?;
        inbound(progress, world, agent, family)?;
    }
    if world.families.contains(&IPV6) {
        progress.check("IPv6: a link-local destination is refused", || link_local(&world.pod))?;
    }
    Ok(())
}

/// Only whether the agent of this name accepts what goes out and what comes in.
pub(super) fn both_ways(world: &World, agent: &str) -> Result<()> {
    for &family in world.families {
        captured(&connected(&world.pod, family.nobody())?, family.nobody(), agent)?;
        delivered(&connected(&world.peer, family.pod(HTTP))?, family.pod(HTTP), agent)?;
    }
    Ok(())
}

fn outbound(progress: &mut Progress, world: &World, agent: &str, family: Family) -> Result<()> {
    let name = |what: &str| format!("{}: {what}", family.name);
    progress.check(&name("the pod's connection reaches the agent with its destination"), || {
        let call = connected(&world.pod, family.nobody())?;
        ensure!(call.own.ip() == family.pod(0).ip(), "its source is {}", call.own);
        captured(&call, family.nobody(), agent)
    })?;
    progress.check(&name("a socket bound to a device reaches the agent as well"), || {
        captured(&call(&world.pod, family.nobody(), Some(DEVICE))?, family.nobody(), agent)
    })?;
    progress.check(&name("the agent's own socket reaches the network"), || {
        let to = family.server();
        let call = connected(&world.pod, to)?;
        let [first, second] = two(&call)?;
        ensure!(*first == line(&who(Direction::Outbound, agent), to, call.own), "heard first {first}");
        ensure!(is_line(second, "server", to, family.pod(0).ip()), "heard then {second}");
        Ok(())
    })
}

fn left_alone(progress: &mut Progress, world: &World, family: Family) -> Result<()> {
    progress.check(&format!("{}: loopback and the pod's own address are left alone", family.name), || {
        for to in [family.loopback(), family.pod(HTTP)] {
            let call = connected(&world.pod, to)?;
            heard(&call, &[&line("app", to, call.own)])?;
        }
        Ok(())
    })
}

fn inbound(progress: &mut Progress, world: &World, agent: &str, family: Family) -> Result<()> {
    let name = |what: &str| format!("{}: {what}", family.name);
    progress.check(&name("plaintext reaches the agent, and the app from the client's address"), || {
        let to = family.pod(HTTP);
        delivered(&connected(&world.peer, to)?, to, agent)
    })?;
    progress.check(&name("the tunnel's port reaches the agent's tunnel"), || {
        let to = family.pod(HBONE);
        let call = connected(&world.peer, to)?;
        heard(&call, &[&line(&who(Direction::Hbone, agent), to, call.own)])
    })?;
    progress.check(&name("a closed port of the pod refuses the agent at once"), || {
        let to = family.pod(CLOSED);
        let call = connected(&world.peer, to)?;
        let refused = format!("error: {:?}", ErrorKind::ConnectionRefused);
        heard(&call, &[&line(&who(Direction::Plaintext, agent), to, call.own), &refused])
    })
}

/// The agent accepted it, and both sides agree on its ends.
fn captured(call: &Call, to: SocketAddr, agent: &str) -> Result<()> {
    ensure!(call.peer == to, "the client sees {} at the other end", call.peer);
    heard(call, &[&line(&who(Direction::Outbound, agent), to, call.own)])
}

/// The agent accepted it and brought it to the app, which sees the client's address.
fn delivered(call: &Call, to: SocketAddr, agent: &str) -> Result<()> {
    let [first, second] = two(call)?;
    ensure!(*first == line(&who(Direction::Plaintext, agent), to, call.own), "heard first {first}");
    ensure!(is_line(second, "app", to, call.own.ip()), "heard then {second}");
    Ok(())
}

fn two(call: &Call) -> Result<[&String; 2]> {
    match call.lines.as_slice() {
        [first, second] => Ok([first, second]),
        other => bail!("heard {other:?}"),
    }
}

fn link_local(pod: &Netns) -> Result<()> {
    let index = pod.run(|| nix::net::if_::if_nametoindex(DEVICE))??;
    let to = SocketAddr::V6(std::net::SocketAddrV6::new("fe80::1".parse()?, HTTP, 0, index));
    match call(pod, to, None) {
        Err(error) if error.kind() == ErrorKind::PermissionDenied => Ok(()),
        other => bail!("{to}: {other:?}"),
    }
}
