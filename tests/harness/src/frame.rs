//! Reading the TCP in an Ethernet frame: IPv4 and IPv6, no VLAN tags and no IPv6 extension headers.
//!
//! Anything else is no TCP packet; nothing here fails on a frame that is cut short.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

const ETHERTYPE_IPV4: u16 = 0x0800;
const ETHERTYPE_IPV6: u16 = 0x86dd;
const PROTOCOL_TCP: u8 = 6;
const FLAG_SYN: u8 = 0x02;
const FLAG_ACK: u8 = 0x10;

/// One TCP segment.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Segment<'a> {
    /// Sender.
    pub source: SocketAddr,
    /// Receiver.
    pub destination: SocketAddr,
    flags: u8,
    /// Bytes after the TCP header.
    pub payload: &'a [u8],
}

impl<'a> Segment<'a> {
    /// Reads a frame that carries TCP.
    pub fn parse(frame: &'a [u8]) -> Option<Self> {
        let packet = frame.get(14..)?;
        let (source, destination, tcp) = match be16(frame, 12)? {
            ETHERTYPE_IPV4 => ipv4(packet)?,
            ETHERTYPE_IPV6 => ipv6(packet)?,
            _ => return None,
        };
        let header = usize::from(tcp.get(12)? >> 4) * 4;
        Some(Self {
            source: SocketAddr::new(source, be16(tcp, 0)?),
            destination: SocketAddr::new(destination, be16(tcp, 2)?),
            flags: *tcp.get(13)?,
            payload: tcp.get(header..)?,
        })
    }

    /// Is it the first segment of a connection?
    pub fn opens(&self) -> bool {
        self.flags & (FLAG_SYN | FLAG_ACK) == FLAG_SYN
    }
}

type Ends<'a> = (IpAddr, IpAddr, &'a [u8]);

fn ipv4(packet: &[u8]) -> Option<Ends<'_>> {
    let header = usize::from(packet.first()? & 0x0f) * 4;
    let total = usize::from(be16(packet, 2)?);
    // An offloaded packet may state no length; a short frame is padded beyond it.
    let end = if total == 0 { packet.len() } else { total.min(packet.len()) };
    if *packet.get(9)? != PROTOCOL_TCP {
        return None;
    }
    let address = |at: usize| Some(Ipv4Addr::from(<[u8; 4]>::try_from(packet.get(at..at + 4)?).ok()?));
    Some((address(12)?.into(), address(16)?.into(), packet.get(header..end)?))
}

fn ipv6(packet: &[u8]) -> Option<Ends<'_>> {
    if *packet.get(6)? != PROTOCOL_TCP {
        return None;
    }
    let length = usize::from(be16(packet, 4)?);
    let end = if length == 0 { packet.len() } else { (40 + length).min(packet.len()) };
    let address = |at: usize| Some(Ipv6Addr::from(<[u8; 16]>::try_from(packet.get(at..at + 16)?).ok()?));
    Some((address(8)?.into(), address(24)?.into(), packet.get(40..end)?))
}

fn be16(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(<[u8; 2]>::try_from(bytes.get(at..at + 2)?).ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tcp(flags: u8, payload: &[u8]) -> Vec<u8> {
        let mut tcp = vec![0x9c, 0x40, 0x3a, 0xa0, 0, 0, 0, 1, 0, 0, 0, 0, 0x50, flags, 0, 0, 0, 0, 0, 0];
        tcp.extend_from_slice(payload);
        tcp
    }

    fn frame4(tcp: &[u8]) -> Vec<u8> {
        let mut frame = vec![0; 12];
        frame.extend([0x08, 0, 0x45, 0, 0, u8::try_from(20 + tcp.len()).unwrap(), 0, 0, 0, 0, 64, 6, 0, 0]);
        frame.extend([10, 1, 1, 2, 10, 1, 2, 2]);
        frame.extend_from_slice(tcp);
        frame
    }

    #[test]
    fn ipv4_segments_are_read_without_padding() {
        let mut frame = frame4(&tcp(FLAG_SYN, b"hi"));
        frame.extend([0; 8]);
        let segment = Segment::parse(&frame).unwrap();
        assert_eq!(segment.source, "10.1.1.2:40000".parse().unwrap());
        assert_eq!(segment.destination, "10.1.2.2:15008".parse().unwrap());
        assert_eq!((segment.payload, segment.opens()), (b"hi".as_slice(), true));
    }

    #[test]
    fn ipv6_segments_are_read() {
        let tcp = tcp(FLAG_SYN | FLAG_ACK, b"yo");
        let mut frame = vec![0; 12];
        frame.extend([0x86, 0xdd, 0x60, 0, 0, 0, 0, u8::try_from(tcp.len()).unwrap(), 6, 64]);
        frame.extend("2001:db8::1".parse::<Ipv6Addr>().unwrap().octets());
        frame.extend("2001:db8::2".parse::<Ipv6Addr>().unwrap().octets());
        frame.extend_from_slice(&tcp);
        let segment = Segment::parse(&frame).unwrap();
        assert_eq!(segment.destination, "[2001:db8::2]:15008".parse().unwrap());
        assert_eq!((segment.payload, segment.opens()), (b"yo".as_slice(), false));
    }

    #[test]
    fn cut_frames_are_no_segments() {
        let frame = frame4(&tcp(FLAG_SYN, b""));
        for length in 0..frame.len() {
            assert_eq!(Segment::parse(&frame[..length]), None, "{length}");
        }
    }
}
