//! Datagrams of a socket with many addresses: to which of them one came, and from which of them one goes.
//!
//! For sockets prepared with [`crate::sockopt::set_packet_info`]. Each function is one call and waits for nothing if the
//! socket is non-blocking.

use std::io::{self, IoSlice, IoSliceMut};
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd as _};

use nix::sys::socket::{
    ControlMessage, ControlMessageOwned, MsgFlags, SockaddrIn, SockaddrIn6, SockaddrStorage, recvmsg, sendmsg,
};

/// A datagram that came.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Arrived {
    /// Its length; what did not fit into the buffer is lost.
    pub length: usize,
    /// Who sent it.
    pub source: SocketAddr,
    /// The address of ours that it was sent to.
    pub destination: IpAddr,
}

/// Receives one.
pub fn receive(socket: &impl AsFd, buffer: &mut [u8]) -> io::Result<Arrived> {
    let mut control = nix::cmsg_space!(libc::in_pktinfo, libc::in6_pktinfo);
    let mut vectors = [IoSliceMut::new(buffer)];
    let fd = socket.as_fd().as_raw_fd();
    let message = recvmsg::<SockaddrStorage>(fd, &mut vectors, Some(&mut control), MsgFlags::empty())?;
    let source = message.address.as_ref().and_then(address_of);
    let destination = message.cmsgs()?.find_map(|item| match item {
        ControlMessageOwned::Ipv4PacketInfo(info) => Some(IpAddr::from(info.ipi_addr.s_addr.to_ne_bytes())),
        ControlMessageOwned::Ipv6PacketInfo(info) => Some(IpAddr::from(info.ipi6_addr.s6_addr)),
        _ => None,
    });
    match (source, destination) {
        (Some(source), Some(destination)) => Ok(Arrived { length: message.bytes, source, destination }),
        _ => Err(io::Error::new(io::ErrorKind::InvalidData, "a datagram without its addresses")),
    }
}

/// Sends one from an address of ours.
pub fn send(socket: &impl AsFd, bytes: &[u8], source: IpAddr, destination: SocketAddr) -> io::Result<()> {
    let fd = socket.as_fd().as_raw_fd();
    let vectors = [IoSlice::new(bytes)];
    let flags = MsgFlags::MSG_NOSIGNAL;
    match (source, destination) {
        (IpAddr::V4(source), SocketAddr::V4(destination)) => {
            let info = libc::in_pktinfo {
                ipi_ifindex: 0,
                ipi_spec_dst: libc::in_addr { s_addr: u32::from_ne_bytes(source.octets()) },
                ipi_addr: libc::in_addr { s_addr: 0 },
            };
            let to = SockaddrIn::from(destination);
            sendmsg(fd, &vectors, &[ControlMessage::Ipv4PacketInfo(&info)], flags, Some(&to))?;
        }
        (IpAddr::V6(source), SocketAddr::V6(destination)) => {
            let ipi6_addr = libc::in6_addr { s6_addr: source.octets() };
            let info = libc::in6_pktinfo { ipi6_addr, ipi6_ifindex: 0 };
            let to = SockaddrIn6::from(destination);
            sendmsg(fd, &vectors, &[ControlMessage::Ipv6PacketInfo(&info)], flags, Some(&to))?;
        }
        _ => {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "a datagram from one family to the other",
            ));
        }
    }
    Ok(())
}

fn address_of(storage: &SockaddrStorage) -> Option<SocketAddr> {
    if let Some(v4) = storage.as_sockaddr_in() {
        return Some(SocketAddr::from((v4.ip(), v4.port())));
    }
    let v6 = storage.as_sockaddr_in6()?;
    Some(SocketAddr::from((v6.ip(), v6.port())))
}

#[cfg(test)]
mod tests {
    use std::net::UdpSocket;

    use super::*;
    use crate::sockopt;

    #[test]
    fn the_address_that_was_asked_answers() {
        for (bound, asked) in [("0.0.0.0:0", "127.83.0.5"), ("[::]:0", "::1")] {
            let server = UdpSocket::bind(bound).unwrap();
            sockopt::set_packet_info(&server, bound.starts_with('[')).unwrap();
            let asked: IpAddr = asked.parse().unwrap();
            let target = SocketAddr::new(asked, server.local_addr().unwrap().port());
            let client = UdpSocket::bind(if asked.is_ipv4() { "127.0.0.1:0" } else { "[::1]:0" }).unwrap();
            // Connected: only an answer from the very address that was asked is let in.
            client.connect(target).unwrap();
            client.send(b"question").unwrap();
            let mut buffer = [0; 64];
            let arrived = receive(&server, &mut buffer).unwrap();
            let expected = Arrived { length: 8, source: client.local_addr().unwrap(), destination: asked };
            assert_eq!(arrived, expected);
            send(&server, b"answer", arrived.destination, arrived.source).unwrap();
            assert_eq!(client.recv(&mut buffer).unwrap(), 6);
        }
    }
}
