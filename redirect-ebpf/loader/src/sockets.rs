//! The agent's connecting sockets inside a pod's network namespace.
//!
//! Two kinds. Towards the network: exempt from capture, for the connect programs know this process as the agent; where they do
//! not, a row in socket-local storage tells them of each socket. Only a holder of that map can write it, so an application
//! cannot pass itself off as the agent. Towards the application: bound to the client's address, so that the application sees
//! who called, and marked, so that its replies come back to the agent.

use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::sync::{Mutex, PoisonError};

use abi::{CAPTURE_MARK, Exemption, map};
use aya::maps::{MapData, SkStorage};
use linux::netns::Netns;
use linux::sockopt;
use socket2::{Domain, Protocol, Socket, Type};

use crate::borrowed::Borrowed;
use crate::error::CaptureError;
use crate::node::{Enlisted, NodeCapture};

/// Makes a pod's sockets; shared by all workers.
#[derive(Debug)]
pub struct PodSockets {
    netns: Netns,
    addresses: Vec<IpAddr>,
    borrowed: Borrowed,
    enlisted: Enlisted,
    // Held for one bpf(2) call; aya asks for exclusive access to write a map.
    exempt: Mutex<SkStorage<MapData, u32>>,
}

impl PodSockets {
    pub(crate) fn new(
        node: &NodeCapture,
        netns: Netns,
        addresses: Vec<IpAddr>,
    ) -> Result<Self, CaptureError> {
        let exempt = SkStorage::try_from(node.exempt()?).map_err(CaptureError::map(map::EXEMPT))?;
        let (borrowed, enlisted) = (Borrowed::new(), node.enlisted());
        Ok(Self { netns, addresses, borrowed, enlisted, exempt: Mutex::new(exempt) })
    }

    /// A socket, not connected yet, for a connection from the pod to the network that is not captured again.
    pub fn to_network(&self, destination: SocketAddr) -> io::Result<Socket> {
        let socket = self.tcp(destination)?;
        self.exempt(&socket)?;
        Ok(socket)
    }

    /// A socket, not connected yet, for queries from the pod to a resolver that are not steered again.
    pub fn to_resolver(&self, resolver: SocketAddr) -> io::Result<Socket> {
        let socket = self.make(Domain::for_address(resolver), Type::DGRAM, Protocol::UDP)?;
        self.exempt(&socket)?;
        Ok(socket)
    }

    /// A socket, not connected yet, whose connection to the pod's application comes from `client`.
    ///
    /// A client with one of the pod's own addresses (the pod calls itself through its service) needs no spoofing: it is
    /// bound as any socket may be.
    ///
    /// `attempt` is the number of sockets that were made for this connection before: connecting fails with
    /// [`io::ErrorKind::AddrNotAvailable`] if an earlier connection still has the port that was borrowed.
    pub fn to_app(&self, client: SocketAddr, destination: SocketAddr, attempt: usize) -> io::Result<Socket> {
        if self.addresses.contains(&client.ip()) {
            let socket = self.to_network(destination)?;
            sockopt::set_bind_address_no_port(&socket)?;
            socket.bind(&SocketAddr::new(client.ip(), 0).into())?;
            return Ok(socket);
        }
        let socket = self.tcp(destination)?;
        if !self.addresses.contains(&destination.ip()) {
            // An address that the pod got just now, which capture will know in a moment.
            self.exempt(&socket)?;
        }
        match client {
            SocketAddr::V4(_) => socket.set_ip_transparent_v4(true)?,
            SocketAddr::V6(_) => socket.set_ip_transparent_v6(true)?,
        }
        socket.set_mark(CAPTURE_MARK)?;
        // Else the route to the pod's own address wins, and the kernel takes the connection for one from outside.
        socket.bind_device(Some(b"lo"))?;
        self.borrowed.bind(&socket, client, attempt)?;
        Ok(socket)
    }

    /// A socket, not connected yet, that is captured as an application's would be.
    pub fn as_application(&self, destination: SocketAddr) -> io::Result<Socket> {
        let socket = self.tcp(destination)?;
        self.mark(&socket, Exemption::Nobody)?;
        Ok(socket)
    }

    /// Makes this process known to the connect programs as the agent.
    pub(crate) fn enlist(&self) -> io::Result<()> {
        let nowhere = SocketAddr::from((Ipv4Addr::BROADCAST, 1));
        let socket = self.tcp(nowhere)?;
        self.mark(&socket, Exemption::Enlist)?;
        // The programs have run when TCP finds that it has no broadcast.
        match socket.connect(&nowhere.into()) {
            Ok(()) => Err(io::Error::other("a connection to the broadcast address was not refused")),
            Err(_) => Ok(()),
        }
    }

    fn tcp(&self, destination: SocketAddr) -> io::Result<Socket> {
        self.make(Domain::for_address(destination), Type::STREAM, Protocol::TCP)
    }

    fn make(&self, domain: Domain, kind: Type, protocol: Protocol) -> io::Result<Socket> {
        self.netns
            .run(|| Socket::new(domain, kind.nonblocking().cloexec(), Some(protocol)))
            .map_err(io::Error::other)?
    }

    fn exempt(&self, socket: &Socket) -> io::Result<()> {
        if self.enlisted.is_known() {
            return Ok(());
        }
        self.mark(socket, Exemption::Agent)
    }

    fn mark(&self, socket: &Socket, as_what: Exemption) -> io::Result<()> {
        self.exempt
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(socket, as_what as u32, 0)
            .map_err(|error| io::Error::other(format!("tell capture of a socket: {error}")))
    }
}
