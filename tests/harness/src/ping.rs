//! One ICMP echo (RFC 792, RFC 4443 section 4.1), by a raw socket.

use std::io::{ErrorKind, Read as _};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use socket2::{Domain, Protocol, Socket, Type};

use crate::forge::checksum;

const PAYLOAD: &[u8] = b"culvert's echo";
const HEADER: usize = 8;

/// Sends an echo request in the calling thread's network namespace and waits for its reply.
pub fn ping(to: IpAddr, limit: Duration) -> Result<()> {
    let (domain, protocol, request, reply) = match to {
        IpAddr::V4(_) => (Domain::IPV4, Protocol::ICMPV4, 8, 0),
        IpAddr::V6(_) => (Domain::IPV6, Protocol::ICMPV6, 128, 129),
    };
    let mut socket = Socket::new(domain, Type::RAW, Some(protocol)).context("a raw socket")?;
    socket.set_read_timeout(Some(limit))?;
    let own = std::process::id().to_be_bytes();
    let identifier = [own[2], own[3]];
    let mut message = vec![request, 0, 0, 0, identifier[0], identifier[1], 0, 1];
    message.extend_from_slice(PAYLOAD);
    if to.is_ipv4() {
        // The kernel fills in ICMPv6's.
        let sum = checksum(&message);
        message.splice(2..4, sum.to_be_bytes());
    }
    socket.send_to(&message, &SocketAddr::new(to, 0).into())?;
    let deadline = Instant::now() + limit;
    let mut buffer = [0; 2048];
    while Instant::now() < deadline {
        let length = match socket.read(&mut buffer) {
            Ok(length) => length,
            Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => break,
            Err(error) => return Err(error.into()),
        };
        let packet = buffer.get(..length).unwrap_or_default();
        // An IPv4 raw socket also shows the IP header, whose length is its first byte's low half in words.
        let start =
            if to.is_ipv4() { packet.first().map_or(0, |first| usize::from(first & 15) * 4) } else { 0 };
        let icmp = packet.get(start..).unwrap_or_default();
        let is_ours = icmp.first() == Some(&reply) && icmp.get(4..6) == Some(&identifier);
        if is_ours && icmp.get(HEADER..) == Some(PAYLOAD) {
            return Ok(());
        }
    }
    bail!("no echo of {to} within {limit:?}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_checksum_of_a_message_with_its_checksum_is_nothing() {
        let mut message = vec![8, 0, 0, 0, 1, 2, 0, 1, 7, 8, 9];
        let sum = checksum(&message);
        message.splice(2..4, sum.to_be_bytes());
        assert_eq!(checksum(&message), 0);
    }
}
