//! Reading a PROXY protocol header, version 2, as an application does that takes connections for others. Written from
//! haproxy's proxy-protocol.txt §2.2, not from what the agent writes.

use std::io::{Error, ErrorKind, Read, Result};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde_json::{Value, json};

const SIGNATURE: [u8; 12] = [0x0d, 0x0a, 0x0d, 0x0a, 0x00, 0x0d, 0x0a, 0x51, 0x55, 0x49, 0x54, 0x0a];
/// Version 2, PROXY.
const PROXY: u8 = 0x21;
const TCP_OVER_IPV4: u8 = 0x11;
const TCP_OVER_IPV6: u8 = 0x21;

/// Reads the header: both addresses, and what comes after them by its type.
pub(crate) fn read(stream: &mut impl Read) -> Result<Value> {
    let mut head = [0; 16];
    stream.read_exact(&mut head)?;
    let [signature @ .., command, family, high, low] = head;
    if signature != SIGNATURE || command != PROXY {
        return Err(wrong(format!("not a PROXY protocol header: {head:02x?}")));
    }
    let mut body = vec![0; usize::from(u16::from_be_bytes([high, low]))];
    stream.read_exact(&mut body)?;
    let mut body = body.as_slice();
    let (client, target) = match family {
        TCP_OVER_IPV4 => {
            let [client, target] = [take::<4>(&mut body)?, take::<4>(&mut body)?].map(Ipv4Addr::from);
            (IpAddr::from(client), IpAddr::from(target))
        }
        TCP_OVER_IPV6 => {
            let [client, target] = [take::<16>(&mut body)?, take::<16>(&mut body)?].map(Ipv6Addr::from);
            (IpAddr::from(client), IpAddr::from(target))
        }
        other => return Err(wrong(format!("family {other:#x}"))),
    };
    let [client_port, target_port] = [take::<2>(&mut body)?, take::<2>(&mut body)?].map(u16::from_be_bytes);
    let mut more = serde_json::Map::new();
    while !body.is_empty() {
        let [kind] = take::<1>(&mut body)?;
        let mut value = vec![0; usize::from(u16::from_be_bytes(take::<2>(&mut body)?))];
        body.read_exact(&mut value)?;
        more.insert(format!("{kind:#x}"), String::from_utf8_lossy(&value).into());
    }
    Ok(json!({
        "client": SocketAddr::new(client, client_port).to_string(),
        "target": SocketAddr::new(target, target_port).to_string(),
        "more": more,
    }))
}

fn take<const N: usize>(from: &mut &[u8]) -> Result<[u8; N]> {
    let mut bytes = [0; N];
    from.read_exact(&mut bytes)?;
    Ok(bytes)
}

fn wrong(what: String) -> Error {
    Error::new(ErrorKind::InvalidData, what)
}
