//! Lets the tunnel make its sockets through capture, which neither of the two knows of.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use linux::netns::NetnsId;
use socket2::Socket;

/// Where resolver libraries find their settings.
const RESOLV_CONF: &str = "/etc/resolv.conf";
/// More than any library reads of it.
const MAX_RESOLV_CONF: u64 = 64 * 1024;

/// A pod's sockets.
pub(crate) struct Sockets {
    sockets: Arc<redirect::PodSockets>,
    node: Arc<redirect::NodeCapture>,
    cookie: u64,
    netns: NetnsId,
    /// The process table that shows the pod's containers.
    proc: PathBuf,
}

impl Sockets {
    /// Those of a captured pod.
    pub(crate) fn new(
        node: Arc<redirect::NodeCapture>,
        attachment: &redirect::Attachment,
        proc: PathBuf,
    ) -> Self {
        let (sockets, cookie, netns) = (attachment.sockets(), attachment.cookie(), attachment.netns().id());
        Self { sockets, node, cookie, netns, proc }
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

    fn resolv_conf(&self) -> Option<String> {
        let read = linux::process::read_in(&self.proc, self.netns, Path::new(RESOLV_CONF), MAX_RESOLV_CONF);
        read.unwrap_or_else(|error| {
            tracing::debug!(%error, "the settings of a pod's resolver are not known");
            None
        })
    }
}
