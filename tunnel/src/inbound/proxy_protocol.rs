//! The PROXY protocol header, version 2, for applications that take connections in the name of others: a
//! waypoint behind an agent. It carries what the tunnel knew: both addresses, the client's identity, and the
//! service it addressed. Layout: haproxy's proxy-protocol.txt §2.2.

use std::net::{IpAddr, SocketAddr};

const SIGNATURE: &[u8; 12] = b"\r\n\r\n\0\r\nQUIT\n";
const VERSION_2_PROXY: u8 = 0x21;
const STREAM_OVER_IPV4: u8 = 0x11;
const STREAM_OVER_IPV6: u8 = 0x21;
/// The client's SPIFFE identity, in the range for applications' own use.
const SOURCE_IDENTITY: u8 = 0xd0;
/// The hostname of the service that was addressed.
const SERVICE: u8 = 0xd1;

/// The header for a connection from `client` to `target`. Values that are too long for it are left out.
pub(crate) fn header(
    client: SocketAddr,
    target: SocketAddr,
    identity: &str,
    service: Option<&str>,
) -> Vec<u8> {
    let mut body = Vec::with_capacity(256);
    let family = match (client.ip(), target.ip()) {
        (IpAddr::V4(client), IpAddr::V4(target)) => {
            body.extend(client.octets());
            body.extend(target.octets());
            STREAM_OVER_IPV4
        }
        (client, target) => {
            body.extend(in_ipv6(client));
            body.extend(in_ipv6(target));
            STREAM_OVER_IPV6
        }
    };
    body.extend(client.port().to_be_bytes());
    body.extend(target.port().to_be_bytes());
    for (kind, value) in [(SOURCE_IDENTITY, Some(identity)), (SERVICE, service)] {
        // A DNS or SPIFFE name has at most 2,048 bytes, so that the sum below fits, too.
        if let Some(value) = value.filter(|value| value.len() <= 2048)
            && let Ok(length) = u16::try_from(value.len())
        {
            body.push(kind);
            body.extend(length.to_be_bytes());
            body.extend(value.as_bytes());
        }
    }
    let length = u16::try_from(body.len()).unwrap_or(u16::MAX);
    let mut header = SIGNATURE.to_vec();
    header.extend([VERSION_2_PROXY, family]);
    header.extend(length.to_be_bytes());
    header.extend(body);
    header
}

fn in_ipv6(address: IpAddr) -> [u8; 16] {
    match address {
        IpAddr::V4(address) => address.to_ipv6_mapped().octets(),
        IpAddr::V6(address) => address.octets(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ipv4_with_both_names() {
        let (client, target) = ("10.0.0.1:1025".parse().unwrap(), "10.0.0.2:80".parse().unwrap());
        let mut expected = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\x00\x19".to_vec();
        expected.extend(b"\x0a\x00\x00\x01\x0a\x00\x00\x02\x04\x01\x00\x50");
        expected.extend(b"\xd0\x00\x03abc\xd1\x00\x04host");
        assert_eq!(header(client, target, "abc", Some("host")), expected);
    }

    #[test]
    fn mixed_families_are_written_as_ipv6_and_long_names_left_out() {
        let (client, target) = ("10.0.0.1:1".parse().unwrap(), "[fd00::1]:2".parse().unwrap());
        let header = header(client, target, &"x".repeat(3000), None);
        assert_eq!(header.len(), 16 + 36);
        assert_eq!(header[13], STREAM_OVER_IPV6);
    }
}
