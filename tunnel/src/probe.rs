//! The agent's answer to itself: how a captured pod's capture is proven.
//!
//! A connection from a pod to one of these addresses, which are set aside for documentation (RFC 5737, RFC 3849) and routed
//! nowhere, is answered with [`ANSWER`] and closed. Whoever makes such a connection in the pod and reads the answer knows
//! that the pod's connections reach the agent.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;

const PORT: u16 = 15008;

/// The address to knock at over IPv4.
pub const V4: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), PORT);

/// The address to knock at over IPv6.
pub const V6: SocketAddr = SocketAddr::new(IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1)), PORT);

/// What the agent says there.
pub const ANSWER: &[u8; 8] = b"culvert\n";

pub(crate) fn is_probe(destination: SocketAddr) -> bool {
    destination == V4 || destination == V6
}

pub(crate) async fn answer(mut stream: TcpStream) {
    // Eight bytes fit into an empty send buffer: this cannot wait. Whoever does not read them is told nothing else.
    if let Err(error) = stream.write_all(ANSWER).await {
        tracing::debug!(%error, "a probe went away");
    }
}
