//! Lets the tunnel make its sockets through capture, which neither of the two knows of.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use socket2::Socket;

/// A pod's sockets.
pub(crate) struct Sockets {
    sockets: Arc<redirect::PodSockets>,
    node: Arc<redirect::NodeCapture>,
    cookie: u64,
}

impl Sockets {
    /// Those of a captured pod.
    pub(crate) fn new(node: Arc<redirect::NodeCapture>, attachment: &redirect::Attachment) -> Self {
        Self { sockets: attachment.sockets(), node, cookie: attachment.cookie() }
    }
}

impl tunnel::PodSockets for Sockets {
    fn to_network(&self, destination: SocketAddr) -> io::Result<Socket> {
        self.sockets.to_network(destination)
    }

    fn to_app(&self, client: SocketAddr, destination: SocketAddr, attempt: usize) -> io::Result<Socket> {
        self.sockets.to_app(client, destination, attempt)
    }

    fn to_resolver(&self, resolver: SocketAddr) -> io::Result<Socket> {
        self.sockets.to_resolver(resolver)
    }

    fn resolver(&self, address: IpAddr) -> Option<IpAddr> {
        self.node.resolver(self.cookie, address)
    }
}
