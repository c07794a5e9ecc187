//! TCP that is written by hand, as an application with `CAP_NET_RAW` can: segments, packets around them, frames.

use std::net::{IpAddr, SocketAddr};

const PROTOCOL: u8 = 6;

/// The flag that opens a connection.
pub const SYN: u8 = 0x02;
/// The flags of a segment that carries something.
pub const PSH_ACK: u8 = 0x18;
/// The flags of a reset.
pub const RST: u8 = 0x04;

/// A TCP segment between two addresses of one family, with its checksum (RFC 9293 section 3.1).
pub fn segment(source: SocketAddr, destination: SocketAddr, flags: u8, payload: &[u8]) -> Vec<u8> {
    let mut tcp = Vec::new();
    tcp.extend(source.port().to_be_bytes());
    tcp.extend(destination.port().to_be_bytes());
    tcp.extend([0, 0, 0, 1, 0, 0, 0, 1, 0x50, flags, 0xff, 0xff, 0, 0, 0, 0]);
    tcp.extend(payload);
    let mut pseudo = octets(source.ip());
    pseudo.extend(octets(destination.ip()));
    pseudo.extend(u32::try_from(tcp.len()).unwrap_or_default().to_be_bytes());
    pseudo.extend([0, 0, 0, PROTOCOL]);
    pseudo.extend(&tcp);
    let sum = checksum(&pseudo).to_be_bytes();
    tcp.splice(16..18, sum);
    tcp
}

/// Where a packet's content lies in the datagram that it is a part of.
#[derive(Clone, Copy, Debug, Default)]
pub struct Fragment {
    /// Bytes before it, a multiple of 8.
    pub offset: u16,
    /// Whether others follow.
    pub more: bool,
}

/// An IPv4 packet (RFC 791) with `content` of TCP, or a part of that.
pub fn ipv4(source: IpAddr, destination: IpAddr, content: &[u8], fragment: Fragment) -> Vec<u8> {
    let total = u16::try_from(20 + content.len()).unwrap_or_default();
    let place = (fragment.offset / 8) | if fragment.more { 0x2000 } else { 0 };
    let mut packet = vec![0x45, 0];
    packet.extend(total.to_be_bytes());
    packet.extend([0x12, 0x34]);
    packet.extend(place.to_be_bytes());
    packet.extend([64, PROTOCOL, 0, 0]);
    packet.extend(octets(source));
    packet.extend(octets(destination));
    let sum = checksum(&packet).to_be_bytes();
    packet.splice(10..12, sum);
    packet.extend(content);
    packet
}

/// An IPv6 packet (RFC 8200) with extension headers, of which the first is `next`, and `content` behind them.
pub fn ipv6(source: IpAddr, destination: IpAddr, next: u8, headers: &[u8], content: &[u8]) -> Vec<u8> {
    let length = u16::try_from(headers.len() + content.len()).unwrap_or_default();
    let mut packet = vec![0x60, 0, 0, 0];
    packet.extend(length.to_be_bytes());
    packet.extend([next, 64]);
    packet.extend(octets(source));
    packet.extend(octets(destination));
    packet.extend(headers);
    packet.extend(content);
    packet
}

/// An IPv6 packet of TCP alone.
pub fn plain_ipv6(source: IpAddr, destination: IpAddr, content: &[u8]) -> Vec<u8> {
    ipv6(source, destination, PROTOCOL, &[], content)
}

/// Number and bytes of a destination options header with padding in it, before TCP.
pub fn options_header() -> (u8, [u8; 8]) {
    (60, [PROTOCOL, 0, 1, 4, 0, 0, 0, 0])
}

/// Number and bytes of a fragment header, before TCP.
pub fn fragment_header(fragment: Fragment) -> (u8, [u8; 8]) {
    let [high, low] = (fragment.offset | u16::from(fragment.more)).to_be_bytes();
    (44, [PROTOCOL, 0, high, low, 0, 0, 0x12, 0x34])
}

/// An Ethernet frame around a packet, with VLAN tags (each 0x8100 and a number).
pub fn frame(source: [u8; 6], destination: [u8; 6], vlans: &[u16], packet: &[u8]) -> Vec<u8> {
    let mut frame = Vec::from(destination);
    frame.extend(source);
    for vlan in vlans {
        frame.extend([0x81, 0x00]);
        frame.extend(vlan.to_be_bytes());
    }
    let is_v4 = packet.first().is_some_and(|first| first >> 4 == 4);
    frame.extend(if is_v4 { [0x08, 0x00] } else { [0x86, 0xdd] });
    frame.extend(packet);
    frame
}

fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(v4) => v4.octets().into(),
        IpAddr::V6(v6) => v6.octets().into(),
    }
}

/// RFC 1071.
pub(crate) fn checksum(message: &[u8]) -> u16 {
    let words = message.chunks(2).map(|pair| match pair {
        [high, low] => u32::from(u16::from_be_bytes([*high, *low])),
        [high] => u32::from(*high) << 8,
        _ => 0,
    });
    let mut sum: u32 = words.sum();
    while sum > 0xffff {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    !u16::try_from(sum).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::frame::Segment;

    #[test]
    fn what_is_forged_is_read_as_what_it_is_said_to_be() {
        for (source, destination) in [("10.1.1.2:7", "10.2.0.9:80"), ("[2001:db8::1]:7", "[2001:db8::2]:80")]
        {
            let (source, destination): (SocketAddr, SocketAddr) =
                (source.parse().unwrap(), destination.parse().unwrap());
            let tcp = segment(source, destination, SYN, b"hi");
            let packet = if source.is_ipv4() {
                ipv4(source.ip(), destination.ip(), &tcp, Fragment::default())
            } else {
                plain_ipv6(source.ip(), destination.ip(), &tcp)
            };
            let bytes = frame([2; 6], [4; 6], &[], &packet);
            let read = Segment::parse(&bytes).unwrap();
            assert_eq!((read.source, read.destination), (source, destination));
            assert!(read.opens() && read.payload == b"hi");
            if source.is_ipv4() {
                assert_eq!(checksum(&packet[..20]), 0);
            }
        }
    }
}
