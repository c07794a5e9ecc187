//! The agent's listening sockets inside a pod's network namespace.
//!
//! `steer` picks them by slot, so they need no well-known port: each is bound to an ephemeral port of the loopback address,
//! where it can disturb no application. They are transparent, for what they accept has somebody else's address as its
//! own: the original destination.
//!
//! One listener serves both families, for a pod keeps them as long as it lives and each takes some 6 KiB of the kernel's
//! memory: an IPv6 socket also takes IPv4 connections, if it is not `IPV6_V6ONLY` (RFC 3493 section 5.3), and sk_lookup may
//! hand it either. It is bound to the IPv4 loopback address in its mapped form, which is there in every namespace. Where the
//! kernel has no IPv6, it is an IPv4 socket.

use std::io;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr, TcpListener, UdpSocket};
use std::os::fd::OwnedFd;

use abi::{CAPTURE_MARK, Direction};
use linux::netns::Netns;
use linux::sockopt;
use socket2::{Domain, Protocol, Socket, Type};

use crate::error::CaptureError;

/// Connections the kernel queues for the agent; the namespace's `somaxconn` may lower it.
const BACKLOG: i32 = 4096;

/// What one of the agent's sockets in a pod is for, whatever its family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// It accepts captured connections.
    Listener(Direction),
    /// It takes DNS queries.
    Dns,
}

impl Role {
    const ALL: [Self; 4] = [
        Self::Listener(Direction::Outbound),
        Self::Listener(Direction::Hbone),
        Self::Listener(Direction::Plaintext),
        Self::Dns,
    ];

    /// A name for messages between agents, which must not change.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Listener(Direction::Outbound) => "outbound",
            Self::Listener(Direction::Hbone) => "hbone",
            Self::Listener(Direction::Plaintext) => "plaintext",
            Self::Dns => "dns",
        }
    }

    /// The role with this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|role| role.as_str() == name)
    }
}

/// The listeners of one pod, one a direction.
#[derive(Debug)]
pub struct Listeners {
    all: Vec<(Direction, TcpListener)>,
    dns: Vec<UdpSocket>,
}

impl Listeners {
    /// Makes them in `netns`.
    pub(crate) fn open(netns: &Netns, dns: bool) -> Result<Self, CaptureError> {
        let mut listeners = Self { all: Vec::new(), dns: Vec::new() };
        listeners.complete(netns, dns)?;
        Ok(listeners)
    }

    /// Those that an agent before this one made, with what each is for. An error if one of them cannot be what it is said to
    /// be.
    pub fn inherit(sockets: Vec<(Role, OwnedFd)>) -> io::Result<Self> {
        let mut listeners = Self { all: Vec::new(), dns: Vec::new() };
        for (role, socket) in sockets {
            let socket = Socket::from(socket);
            match role {
                Role::Listener(direction) if takes_all(&socket)? && listeners.first(direction).is_err() => {
                    listeners.all.push((direction, socket.into()));
                }
                Role::Dns if socket.r#type()? == Type::DGRAM => listeners.dns.push(socket.into()),
                _ => {
                    let what = format!("a socket that cannot be for {}", role.as_str());
                    return Err(io::Error::new(io::ErrorKind::InvalidInput, what));
                }
            }
        }
        Ok(listeners)
    }

    /// Descriptors of the same sockets, with what each is for, to be passed to another agent.
    pub fn share(&self) -> io::Result<Vec<(Role, OwnedFd)>> {
        let twice = self.try_clone()?;
        let listeners = twice.all.into_iter();
        let listeners =
            listeners.map(|(direction, socket)| (Role::Listener(direction), OwnedFd::from(socket)));
        let dns = twice.dns.into_iter().map(|socket| (Role::Dns, OwnedFd::from(socket)));
        Ok(listeners.chain(dns).collect())
    }

    /// Makes those in `netns` that are missing.
    pub(crate) fn complete(&mut self, netns: &Netns, dns: bool) -> Result<(), CaptureError> {
        for direction in [Direction::Outbound, Direction::Hbone, Direction::Plaintext] {
            if self.first(direction).is_err() {
                let socket = netns.run(open)?.map_err(CaptureError::socket("open a listener"))?;
                self.all.push((direction, socket));
            }
        }
        if !dns {
            self.dns.clear();
        } else if self.dns.is_empty() {
            self.dns = netns.run(open_dns)?.map_err(CaptureError::socket("open a DNS socket"))?;
        }
        Ok(())
    }

    /// The port at which DNS queries are taken, the same in both families; 0 where they are not.
    pub(crate) fn dns_port(&self) -> u16 {
        self.dns.first().and_then(|socket| socket.local_addr().ok()).map_or(0, |address| address.port())
    }

    /// How many of them take nothing any more: somebody has closed them from outside (`ss -K`), which also takes a DNS socket's
    /// port away.
    pub(crate) fn closed(&self) -> usize {
        let listening = |socket: &TcpListener| sockopt::is_listening(socket).unwrap_or(false);
        let bound = |socket: &UdpSocket| socket.local_addr().is_ok_and(|address| address.port() != 0);
        self.all.iter().filter(|(_, socket)| !listening(socket)).count()
            + self.dns.iter().filter(|socket| !bound(socket)).count()
    }

    /// Takes out the DNS sockets, one a family.
    pub fn take_dns(&mut self) -> Vec<UdpSocket> {
        std::mem::take(&mut self.dns)
    }

    /// All of them, with what each is for.
    pub fn iter(&self) -> impl Iterator<Item = (Direction, &TcpListener)> {
        self.all.iter().map(|(direction, socket)| (*direction, socket))
    }

    /// Other handles of the same sockets.
    pub fn try_clone(&self) -> io::Result<Self> {
        let twice = |(direction, socket): &(Direction, TcpListener)| Ok((*direction, socket.try_clone()?));
        let all = self.all.iter().map(twice).collect::<io::Result<_>>()?;
        let dns = self.dns.iter().map(UdpSocket::try_clone).collect::<io::Result<_>>()?;
        Ok(Self { all, dns })
    }

    /// The one of a direction.
    pub(crate) fn first(&self, direction: Direction) -> Result<&TcpListener, CaptureError> {
        self.all
            .iter()
            .find(|(its, _)| *its == direction)
            .map(|(_, socket)| socket)
            .ok_or(CaptureError::Missing("listener of the pod"))
    }

    /// Where the one of a direction is reached inside the namespace.
    pub fn address(&self, direction: Direction) -> Option<SocketAddr> {
        let address = self.first(direction).ok()?.local_addr().ok()?;
        Some(SocketAddr::new(address.ip().to_canonical(), address.port()))
    }

    /// Takes out the one of a direction.
    pub fn take(&mut self, direction: Direction) -> Option<TcpListener> {
        let index = self.all.iter().position(|(its, _)| *its == direction)?;
        Some(self.all.swap_remove(index).1)
    }
}

fn is_unsupported(error: &io::Error) -> bool {
    const EAFNOSUPPORT: i32 = 97;
    error.raw_os_error() == Some(EAFNOSUPPORT)
}

/// Whether a socket listens, in all families that there are.
fn takes_all(socket: &Socket) -> io::Result<bool> {
    let all = match socket.domain()? {
        Domain::IPV6 => !socket.only_v6()?,
        Domain::IPV4 => !has_ipv6(),
        _ => false,
    };
    Ok(all && socket.is_listener()?)
}

fn has_ipv6() -> bool {
    !matches!(Socket::new(Domain::IPV6, Type::STREAM, None), Err(error) if is_unsupported(&error))
}

fn open() -> io::Result<TcpListener> {
    let (socket, address) = match Socket::new(Domain::IPV6, Type::STREAM, Some(Protocol::TCP)) {
        Ok(socket) => {
            socket.set_only_v6(false)?;
            socket.set_ip_transparent_v6(true)?;
            (socket, SocketAddr::from((Ipv4Addr::LOCALHOST.to_ipv6_mapped(), 0)))
        }
        Err(error) if is_unsupported(&error) => {
            let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
            socket.set_ip_transparent_v4(true)?;
            (socket, SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
        }
        Err(error) => return Err(error),
    };
    // An accepted connection holds the port that the client asked for. Without this, which it inherits, an application
    // that starts later could not bind that port.
    socket.set_reuse_address(true)?;
    // Inherited as well, which saves a call for each connection.
    socket.set_tcp_nodelay(true)?;
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Sockets for DNS queries, on the same port in both families.
///
/// They take what comes over lo only, to whichever address: the address tells the resolver that the query is for.
fn open_dns() -> io::Result<Vec<UdpSocket>> {
    const ATTEMPTS: u32 = 8;
    for _ in 0..ATTEMPTS {
        let v4 = dns_socket(SocketAddr::from((Ipv4Addr::UNSPECIFIED, 0)))?;
        let port = v4.local_addr()?.port();
        match dns_socket(SocketAddr::from((Ipv6Addr::UNSPECIFIED, port))) {
            Ok(v6) => return Ok(vec![v4, v6]),
            Err(error) if is_unsupported(&error) => return Ok(vec![v4]),
            // An application has that port in IPv6: another one.
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::new(io::ErrorKind::AddrInUse, "no port is free in both families"))
}

fn dns_socket(address: SocketAddr) -> io::Result<UdpSocket> {
    let socket = Socket::new(Domain::for_address(address), Type::DGRAM, Some(Protocol::UDP))?;
    socket.bind_device(Some(b"lo"))?;
    // For the way back: the pod's own addresses are not lo's, but every address of the table of marked packets is.
    socket.set_mark(CAPTURE_MARK)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
        // Answers come from an address that is local, but is no interface's.
        socket.set_ip_transparent_v6(true)?;
    }
    sockopt::set_packet_info(&socket, address.is_ipv6())?;
    socket.bind(&address.into())?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}
