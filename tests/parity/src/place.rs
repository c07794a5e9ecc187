//! A place where servers and clients are: a namespace with addresses, by the name that the recording has for it.

use std::net::{IpAddr, SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::Result;
use harness::inside::in_netns;

/// A pod, a node itself, or the host outside.
#[derive(Clone, Debug)]
pub struct Place {
    /// Its name in the recording.
    pub name: String,
    /// Its namespace.
    pub netns: PathBuf,
    /// Addresses that its connections may come from.
    pub ips: Vec<IpAddr>,
    /// Whether an agent captures what it sends.
    pub captured: bool,
    /// What the series call it.
    pub workload: String,
}

impl Place {
    /// Its namespace.
    pub fn netns(&self) -> &Path {
        &self.netns
    }

    /// Whether a line of the access log may be about a connection of its own.
    pub fn has(&self, ip: &str) -> bool {
        ip.parse().is_ok_and(|ip: IpAddr| self.ips.contains(&ip))
    }

    /// Connects from there.
    pub fn connect(&self, to: SocketAddr, limit: Duration) -> Result<std::io::Result<TcpStream>> {
        in_netns(&self.netns, || harness::client::connect(to, limit))
    }
}
