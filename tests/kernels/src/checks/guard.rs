//! TCP that the pod writes by hand leaves it, unless it is guarded.

use std::io::{ErrorKind, Read as _};
use std::net::SocketAddr;
use std::time::Instant;

use anyhow::{Context as _, Result, bail, ensure};
use linux::bpf;
use linux::netlink::interfaces::interfaces;
use linux::netlink::tc::Filters;
use socket2::{Domain, Protocol, Socket, Type};

use super::Progress;
use crate::world::{Family, World};
use crate::{LIMIT, failure, guest};

/// Nobody listens there, nor connects from there.
const PORT: u16 = 7;
const SYN: u8 = 0x02;
const RST: u8 = 0x04;
const PSH_ACK: u8 = 0x18;

/// Brings what the guard needs of the kernel, and looks what is said without it.
pub(super) fn needs(progress: &mut Progress) -> Result<()> {
    if bpf::has_egress_links() || !guest::has_optional_modules() {
        return Ok(());
    }
    progress.refusal("without the modules for classifiers the guard says so", failure::without_classifier)?;
    guest::load_optional_modules()
}

/// A pod that is captured, and guarded.
pub(super) fn all(progress: &mut Progress, world: &World) -> Result<()> {
    let by = if bpf::has_egress_links() { "by a link" } else { "by a filter" };
    progress.check(&format!("the guard is there {by}"), || {
        ensure!(programs(world)? == 1, "{} programs", programs(world)?);
        let numbers = std::fs::read_to_string("/proc/sys/kernel/osrelease")?;
        let mut numbers = numbers.split(['.', '-']).map(str::parse::<u32>);
        let version = (numbers.next().context("release")??, numbers.next().context("release")??);
        ensure!(bpf::has_egress_links() == (version >= (6, 6)), "{by} on {version:?}");
        Ok(())
    })?;
    progress.check("TCP that is written by hand does not leave the pod", || is_shut(world))
}

/// What opens or carries something is dropped, what does neither is not.
pub(super) fn is_shut(world: &World) -> Result<()> {
    for &family in world.families {
        let seen = arrived(world, family)?;
        ensure!(seen == [RST], "{} segments with flags {seen:x?} left the pod", family.name);
    }
    Ok(())
}

/// All of it leaves.
pub(super) fn is_open(world: &World) -> Result<()> {
    for &family in world.families {
        let seen = arrived(world, family)?;
        ensure!(seen == [SYN, PSH_ACK, RST], "{}: only segments with flags {seen:x?}", family.name);
    }
    Ok(())
}

/// Nothing of the guard is left.
pub(super) fn is_gone(world: &World) -> Result<()> {
    ensure!(programs(world)? == 0, "{} programs are left", programs(world)?);
    if !bpf::has_egress_links() {
        for interface in interfaces(&world.pod)? {
            let mut filters = Filters::open(&world.pod)?;
            ensure!(filters.add_qdisc(interface.index)?, "the qdisc of {} is left", interface.name);
            filters.remove_empty_qdisc(interface.index)?;
        }
    }
    is_open(world)
}

/// Programs on the way out of the pod's interfaces.
fn programs(world: &World) -> Result<usize> {
    let mut count = 0;
    for interface in interfaces(&world.pod)? {
        count += if bpf::has_egress_links() {
            world.pod.run(|| bpf::attached_egress(interface.index))??.len()
        } else {
            Filters::open(&world.pod)?.on_egress(interface.index)?.len()
        };
    }
    Ok(count)
}

/// Flags of the segments that arrive on the other machine, of three that the pod writes.
fn arrived(world: &World, family: Family) -> Result<Vec<u8>> {
    let raw = || Socket::new(Domain::for_address(family.server()), Type::RAW, Some(Protocol::TCP));
    let mut there = world.peer.run(raw)?.context("a raw socket")?;
    there.set_read_timeout(Some(LIMIT))?;
    let here = world.pod.run(raw)?.context("a raw socket")?;
    for (flags, payload) in [(SYN, &b""[..]), (PSH_ACK, b"by hand"), (RST, b"")] {
        let to = SocketAddr::new(family.server().ip(), 0);
        match here.send_to(&segment(flags, payload), &to.into()) {
            // The sender may be told that it was dropped.
            Err(error) if error.raw_os_error() != Some(ENOBUFS) => {
                return Err(error).context("writing by hand");
            }
            _ => {}
        }
    }
    // The reset comes last, whatever came before it.
    let (mut seen, mut buffer, end) = (Vec::new(), [0; 2048], Instant::now() + LIMIT);
    while Instant::now() < end {
        let length = match there.read(&mut buffer) {
            Ok(length) => length,
            Err(error) if error.kind() == ErrorKind::Interrupted => continue,
            Err(error) => return Err(error).context("waiting for the segments"),
        };
        let packet = buffer.get(..length).unwrap_or_default();
        // A raw socket of IPv4 also shows the IP header, whose length is its first byte's low half in words.
        let words = if family.server().is_ipv4() { packet.first().map_or(0, |first| first & 15) } else { 0 };
        let tcp = packet.get(usize::from(words) * 4..).unwrap_or_default();
        if tcp.get(2..4) != Some(&PORT.to_be_bytes()) {
            continue;
        }
        let flags = *tcp.get(13).context("a segment without flags")?;
        seen.push(flags);
        if flags == RST {
            return Ok(seen);
        }
    }
    bail!("not even the reset arrived")
}

const ENOBUFS: i32 = 105;

/// A segment whose checksum nobody looks at.
fn segment(flags: u8, payload: &[u8]) -> Vec<u8> {
    let [high, low] = PORT.to_be_bytes();
    let mut tcp = vec![high, low, high, low, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0];
    tcp.extend(payload);
    tcp
}
