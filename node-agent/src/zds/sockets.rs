//! Sockets in a pod whose traffic istio-cni's rules capture.
//!
//! The rules leave alone what bears the proxy's mark (`PACKET_MARK`); what comes from such a socket to the pod's application they
//! remember, so that the application's replies come back to a socket with somebody else's address.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::Path;

use linux::netns::Netns;
use linux::sockopt;
use socket2::{Domain, Protocol, Socket, Type};
use tokio::net::TcpStream;

use super::listeners::{DNS, OUTBOUND, PLAINTEXT};

/// The agent's own, for queries of pods come without the address that they were sent to.
const RESOLV_CONF: &str = "/etc/resolv.conf";

/// A pod's sockets.
pub(super) struct Sockets {
    netns: Netns,
    mark: u32,
}

impl Sockets {
    /// Those of the pod with this namespace, exempt by this mark.
    pub(super) fn new(netns: Netns, mark: u32) -> Self {
        Self { netns, mark }
    }

    fn make(&self, to: SocketAddr, kind: Type, protocol: Protocol) -> io::Result<Socket> {
        let make = || Socket::new(Domain::for_address(to), kind.nonblocking().cloexec(), Some(protocol));
        let socket = self.netns.run(make).map_err(io::Error::other)??;
        socket.set_mark(self.mark)?;
        Ok(socket)
    }
}

impl tunnel::PodSockets for Sockets {
    fn to_network(&self, destination: SocketAddr) -> io::Result<Socket> {
        self.make(destination, Type::STREAM, Protocol::TCP)
    }

    fn to_app(&self, client: SocketAddr, destination: SocketAddr, _: usize) -> io::Result<Socket> {
        let socket = self.make(destination, Type::STREAM, Protocol::TCP)?;
        match client {
            SocketAddr::V4(_) => socket.set_ip_transparent_v4(true)?,
            SocketAddr::V6(_) => socket.set_ip_transparent_v6(true)?,
        }
        sockopt::set_bind_address_no_port(&socket)?;
        socket.bind(&SocketAddr::new(client.ip(), 0).into())?;
        Ok(socket)
    }

    fn to_resolver(&self, resolver: SocketAddr) -> io::Result<Socket> {
        self.make(resolver, Type::DGRAM, Protocol::UDP)
    }

    fn resolver(&self, address: IpAddr) -> Option<IpAddr> {
        let text = std::fs::read_to_string(Path::new(RESOLV_CONF)).ok()?;
        let servers = text.lines().filter_map(|line| {
            let mut words = line.split_whitespace();
            words.next().filter(|word| *word == "nameserver")?;
            words.next()?.parse::<IpAddr>().ok()
        });
        let servers: Vec<IpAddr> = servers.collect();
        let of_family = servers.iter().find(|server| server.is_ipv4() == address.is_ipv4());
        of_family.or(servers.first()).copied()
    }

    fn original_destination(&self, accepted: &TcpStream) -> io::Result<SocketAddr> {
        let local = accepted.local_addr()?;
        if local.port() == mesh::HBONE_PORT {
            return Ok(local);
        }
        let original = sockopt::original_destination(accepted)?;
        if original == local || [OUTBOUND, PLAINTEXT, DNS].contains(&original.port()) {
            let what = format!("{original} is the agent's own port, and nobody's to call");
            return Err(io::Error::new(io::ErrorKind::ConnectionRefused, what));
        }
        Ok(original)
    }
}
