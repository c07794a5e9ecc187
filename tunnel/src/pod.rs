//! A pod as the data path sees it: who it is, its listeners, and how sockets are made in its netns.
//!
//! How connections get captured and what it takes to enter a netns is somebody else's; it reaches this crate
//! through [`PodSockets`] and [`Listeners`] only.

use std::fmt;
use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, UdpSocket};
use std::sync::Arc;

use socket2::Socket;
use tokio::net::TcpStream;
use tokio::sync::watch;

/// Makes sockets that live in a pod's netns.
pub trait PodSockets: Send + Sync {
    /// An unconnected, non-blocking TCP socket to dial `destination` with, exempt from capture.
    ///
    /// # Errors
    /// Whatever the kernel says; the connection is refused with it.
    fn to_network(&self, destination: SocketAddr) -> io::Result<Socket>;

    /// The same for reaching the pod's own application, bound so that it sees the address of `client` as its peer's, with
    /// another port than the client's. `attempt` counts the sockets of one connection, from 0: if connecting one fails
    /// with [`io::ErrorKind::AddrNotAvailable`], another one may be asked for.
    ///
    /// # Errors
    /// Whatever the kernel says; the connection is refused with it.
    fn to_app(&self, client: SocketAddr, destination: SocketAddr, attempt: usize) -> io::Result<Socket>;

    /// An unconnected, non-blocking UDP socket to ask a resolver with, exempt from capture.
    ///
    /// # Errors
    /// Whatever the kernel says; the query is dropped.
    fn to_resolver(&self, resolver: SocketAddr) -> io::Result<Socket>;

    /// The resolver that is meant by a query which came to `address` of a DNS socket.
    fn resolver(&self, address: IpAddr) -> Option<IpAddr>;

    /// The text of `/etc/resolv.conf` as the pod's own processes see it; none where no such process is found. May block.
    fn resolv_conf(&self) -> Option<String> {
        None
    }

    /// Where a captured connection was going. Transparent capture leaves that in the local address.
    ///
    /// # Errors
    /// When the connection is gone already.
    fn original_destination(&self, accepted: &TcpStream) -> io::Result<SocketAddr> {
        accepted.local_addr()
    }

    /// The address to connect to in order to reach `destination`: itself, unless the pod's network has it
    /// somewhere else.
    fn locate(&self, destination: SocketAddr) -> SocketAddr {
        destination
    }
}

/// An enrolled pod.
#[derive(Clone)]
pub struct Pod {
    /// The uid of its workload, `cluster//Pod/namespace/name`; or any other, if it is to be found by name.
    pub uid: Arc<str>,
    /// Its name.
    pub name: Arc<str>,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// The service account it runs as, where whoever enrolled it knows; else its workload's is taken.
    pub service_account: Option<Arc<str>>,
    /// Sockets in its netns.
    pub sockets: Arc<dyn PodSockets>,
    /// Where its own HBONE listener is reached from inside, for connections to itself through a VIP.
    pub self_address: Option<SocketAddr>,
}

impl fmt::Debug for Pod {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// The listening sockets of a pod, non-blocking, at most one a family each.
///
/// The local address of what they accept is the connection's original destination.
#[derive(Debug, Default)]
pub struct Listeners {
    /// What the pod's applications open.
    pub outbound: Vec<TcpListener>,
    /// What arrives in plaintext.
    pub plaintext: Vec<TcpListener>,
    /// What arrives in tunnels.
    pub hbone: Vec<TcpListener>,
    /// DNS queries, with the address that each was sent to (`IP_PKTINFO`); none where they are not captured.
    pub dns: Vec<UdpSocket>,
}

/// A pod being served. Dropping it stops accepting and closes tunnels that carry nothing, from it and to it; connections
/// that are there go on, and with the last of them the pod's identity is released.
#[derive(Debug)]
#[must_use = "the pod is served only as long as its handle lives"]
pub struct PodHandle {
    _serving: watch::Sender<()>,
}

impl PodHandle {
    pub(crate) fn new(serving: watch::Sender<()>) -> Self {
        Self { _serving: serving }
    }
}
