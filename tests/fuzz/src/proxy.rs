//! The PROXY protocol header: what is written is what a reader of another make reads.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use tunnel::fuzzing;

/// The longest value that is written.
const LONGEST: usize = 2048;

/// Bytes to be used up.
struct Input<'a>(&'a [u8]);

impl<'a> Input<'a> {
    fn take<const N: usize>(&mut self) -> [u8; N] {
        let mut taken = [0; N];
        let count = N.min(self.0.len());
        taken[..count].copy_from_slice(&self.0[..count]);
        self.0 = &self.0[count..];
        taken
    }

    fn address(&mut self, v6: bool) -> SocketAddr {
        let port = u16::from_be_bytes(self.take());
        let ip = if v6 {
            IpAddr::from(Ipv6Addr::from(self.take::<16>()))
        } else {
            IpAddr::from(Ipv4Addr::from(self.take::<4>()))
        };
        SocketAddr::new(ip, port)
    }

    /// Text of the length that two bytes say, repeated so that it may be long.
    fn text(&mut self) -> String {
        let [length, times] = self.take();
        let end = usize::from(length).min(self.0.len());
        let text = String::from_utf8_lossy(&self.0[..end]).into_owned();
        self.0 = &self.0[end..];
        text.repeat(usize::from(times))
    }
}

/// The first byte says which families, and whether there is a service.
///
/// # Panics
/// When something does not hold.
pub fn proxy_protocol(data: &[u8]) {
    let mut input = Input(data);
    let [kinds] = input.take();
    let client = input.address(kinds & 1 != 0);
    let target = input.address(kinds & 2 != 0);
    let identity = input.text();
    let service = (kinds & 4 != 0).then(|| input.text());
    let header = fuzzing::proxy_header(client, target, &identity, service.as_deref());
    let read = Header::read(&header);
    let v4 = client.is_ipv4() && target.is_ipv4();
    let as_written = |address: SocketAddr| match address.ip() {
        IpAddr::V4(ip) if !v4 => SocketAddr::new(ip.to_ipv6_mapped().into(), address.port()),
        _ => address,
    };
    assert_eq!((read.client, read.target), (as_written(client), as_written(target)));
    let expected = |value: &str| (value.len() <= LONGEST).then(|| value.as_bytes().to_vec());
    assert_eq!(read.identity, expected(&identity));
    assert_eq!(read.service, service.as_deref().and_then(expected));
}

/// What a reader makes of a header; written from haproxy's proxy-protocol.txt §2.2 with nothing of the writer in it.
struct Header {
    client: SocketAddr,
    target: SocketAddr,
    identity: Option<Vec<u8>>,
    service: Option<Vec<u8>>,
}

impl Header {
    fn read(bytes: &[u8]) -> Self {
        assert_eq!(&bytes[..12], &[0x0d, 0x0a, 0x0d, 0x0a, 0, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a]);
        assert_eq!(bytes[12], 0x21, "version 2, PROXY");
        let length = usize::from(u16::from_be_bytes([bytes[14], bytes[15]]));
        assert_eq!(bytes.len(), 16 + length, "the whole header and nothing more");
        let mut body = Input(&bytes[16..]);
        let (client, target): (IpAddr, IpAddr) = match bytes[13] {
            0x11 => (Ipv4Addr::from(body.take::<4>()).into(), Ipv4Addr::from(body.take::<4>()).into()),
            0x21 => (Ipv6Addr::from(body.take::<16>()).into(), Ipv6Addr::from(body.take::<16>()).into()),
            other => panic!("family and protocol {other:#x}"),
        };
        let ports = [u16::from_be_bytes(body.take()), u16::from_be_bytes(body.take())];
        let mut header = Self {
            client: SocketAddr::new(client, ports[0]),
            target: SocketAddr::new(target, ports[1]),
            identity: None,
            service: None,
        };
        while !body.0.is_empty() {
            let [kind, high, low] = body.take();
            let length = usize::from(u16::from_be_bytes([high, low]));
            let value = body.0[..length].to_vec();
            body.0 = &body.0[length..];
            let slot = match kind {
                0xd0 => &mut header.identity,
                0xd1 => &mut header.service,
                other => panic!("value of type {other:#x}"),
            };
            assert!(slot.replace(value).is_none(), "a value comes once");
        }
        header
    }
}
