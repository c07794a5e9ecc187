//! The sockets to which istio-cni's rules redirect what they capture, and the port of the tunnel.
//!
//! The ports are the peers' own, for the rules name them. Two agents may have them at once (`SO_REUSEPORT`), so that one can
//! take the place of another: the kernel deals out new connections among both until the old one closes its own, and hands
//! what still waits there to the new one (`tcp_migrate_req`, Linux 5.14).

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use linux::netns::Netns;
use linux::{sockopt, sysctl};
use socket2::{Domain, Protocol, Socket, Type};
use tunnel::Listeners;

/// Where the rules send what applications open.
pub(super) const OUTBOUND: u16 = 15001;
/// Where they send what arrives in plaintext.
pub(super) const PLAINTEXT: u16 = 15006;
/// Where they send what asks for names.
pub(super) const DNS: u16 = 15053;
/// Has connections that wait at a listener go to another one of the same port when it is closed.
const MIGRATE: &str = "net.ipv4.tcp_migrate_req";
/// Connections the kernel queues for the agent; the namespace's `somaxconn` may lower it.
const BACKLOG: i32 = 4096;

/// Opens them in a pod.
///
/// # Errors
/// When a port is taken by somebody else, or the namespace cannot be entered.
pub(super) fn open(netns: &Netns, dns: bool) -> io::Result<Listeners> {
    netns.run(|| open_here(dns)).map_err(io::Error::other)?
}

fn open_here(dns: bool) -> io::Result<Listeners> {
    // Without it what waits in a listener that is closed is reset.
    if let Err(error) = sysctl::set(MIGRATE, "1") {
        tracing::debug!(%error, "connections that wait while another agent takes over are reset");
    }
    let mut listeners = Listeners::default();
    for everywhere in [IpAddr::from(Ipv4Addr::UNSPECIFIED), Ipv6Addr::UNSPECIFIED.into()] {
        if !has_family(everywhere) {
            continue;
        }
        let listen = |port| listener(SocketAddr::new(everywhere, port));
        listeners.outbound.push(listen(OUTBOUND)?);
        listeners.plaintext.push(listen(PLAINTEXT)?);
        listeners.hbone.push(listen(mesh::HBONE_PORT)?);
        if dns {
            // Questions by TCP are told from other connections by the port that they were sent to.
            let home =
                if everywhere.is_ipv4() { Ipv4Addr::LOCALHOST.into() } else { Ipv6Addr::LOCALHOST.into() };
            let home = SocketAddr::new(home, DNS);
            listeners.outbound.push(listener(home)?);
            listeners.dns.push(datagrams(home)?);
        }
    }
    Ok(listeners)
}

/// Whether there is such a family here: an address of it can be bound to.
fn has_family(everywhere: IpAddr) -> bool {
    let address = SocketAddr::new(everywhere, 0);
    Socket::new(Domain::for_address(address), Type::DGRAM, None)
        .and_then(|socket| socket.bind(&address.into()))
        .is_ok()
}

fn listener(address: SocketAddr) -> io::Result<std::net::TcpListener> {
    let socket = bound(address, Type::STREAM, Protocol::TCP)?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

fn datagrams(address: SocketAddr) -> io::Result<std::net::UdpSocket> {
    let socket = bound(address, Type::DGRAM, Protocol::UDP)?;
    sockopt::set_packet_info(&socket, address.is_ipv6())?;
    Ok(socket.into())
}

fn bound(address: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
    let socket = Socket::new(Domain::for_address(address), kind.nonblocking().cloexec(), Some(protocol))?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.bind(&address.into()).map_err(|error| {
        let what = format!("{address} in the pod: {error}; is another agent or application there?");
        io::Error::new(error.kind(), what)
    })?;
    Ok(socket)
}
