//! Lets the tunnel make its sockets through capture, which neither of the two knows of.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use socket2::Socket;

/// A pod's sockets.
#[derive(Debug)]
pub(crate) struct Sockets(Arc<redirect::PodSockets>);

impl Sockets {
    pub(crate) fn new(sockets: Arc<redirect::PodSockets>) -> Self {
        Self(sockets)
    }
}

impl tunnel::PodSockets for Sockets {
    fn to_network(&self, destination: SocketAddr) -> io::Result<Socket> {
        self.0.to_network(destination)
    }

    fn to_app(&self, client: IpAddr, destination: SocketAddr) -> io::Result<Socket> {
        self.0.to_app(client, destination)
    }
}
