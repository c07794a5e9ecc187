//! Addresses, ranges, ports and gateways.
//!
//! Invariant: addresses are canonical; a range of IPv4-mapped addresses is the range of IPv4 addresses that they stand for.

use std::net::IpAddr;

use ipnet::IpNet;
use mesh::workload::{GatewayAddress, GatewayDestination, PortMap};
use mesh::{HBONE_PORT, NetworkAddress};

use super::Fault;
use super::text::{hostname, text};
use crate::proto::workload::gateway_address::Destination;
use crate::proto::workload::{self as wire, Port};

/// Bits that all IPv4-mapped addresses have in common (RFC 4291 section 2.5.5.2).
const MAPPED_PREFIX: u8 = 96;

/// 4 or 16 bytes.
pub(super) fn ip(field: &'static str, bytes: &[u8]) -> Result<IpAddr, Fault> {
    Ok(raw_ip(field, bytes)?.to_canonical())
}

fn raw_ip(field: &'static str, bytes: &[u8]) -> Result<IpAddr, Fault> {
    if let Ok(bytes) = <[u8; 4]>::try_from(bytes) {
        Ok(bytes.into())
    } else if let Ok(bytes) = <[u8; 16]>::try_from(bytes) {
        Ok(bytes.into())
    } else {
        Err(Fault::new(field, format!("an address has 4 or 16 bytes, not {}", bytes.len())))
    }
}

/// An address and the length of its prefix, in bits.
pub(super) fn range(field: &'static str, bytes: &[u8], length: u32) -> Result<IpNet, Fault> {
    let address = raw_ip(field, bytes)?;
    let net = u8::try_from(length).ok().and_then(|length| IpNet::new(address, length).ok());
    let net = net.ok_or_else(|| Fault::new(field, format!("{address} has no prefix of {length} bits")))?;
    let mapped = match (net.network(), address.to_canonical()) {
        (IpAddr::V6(_), v4 @ IpAddr::V4(_)) => {
            net.prefix_len().checked_sub(MAPPED_PREFIX).and_then(|length| IpNet::new(v4, length).ok())
        }
        _ => None,
    };
    Ok(mapped.unwrap_or(net).trunc())
}

/// A port from 1 to 65535.
pub(super) fn port(field: &'static str, port: u32) -> Result<u16, Fault> {
    match u16::try_from(port) {
        Ok(0) | Err(_) => Err(Fault::new(field, format!("{port} is not a port from 1 to 65535"))),
        Ok(port) => Ok(port),
    }
}

/// Ports of a service and what they lead to; 0 where that is another one for each endpoint.
pub(super) fn ports(field: &'static str, wire: &[Port]) -> Result<PortMap, Fault> {
    let target = |target: u32| if target == 0 { Ok(0) } else { port(field, target) };
    wire.iter().map(|wire| Ok((port(field, wire.service_port)?, target(wire.target_port)?))).collect()
}

/// A single address on a network.
pub(super) fn address(field: &'static str, wire: &wire::NetworkAddress) -> Result<NetworkAddress, Fault> {
    let address = ip(field, &wire.address)?;
    match wire.length {
        Some(length) if !is_single(&range(field, &wire.address, length)?) => {
            Err(Fault::new(field, format!("{address}/{length} is a range, not an address")))
        }
        _ => Ok(NetworkAddress::new(text(&wire.network), address)),
    }
}

/// Where a waypoint or a network gateway is. Without a port it is on that of HBONE.
pub(super) fn gateway(field: &'static str, wire: &wire::GatewayAddress) -> Result<GatewayAddress, Fault> {
    let destination = match &wire.destination {
        Some(Destination::Hostname(name)) => GatewayDestination::Hostname(hostname(field, name)?),
        Some(Destination::Address(wire)) => GatewayDestination::Address(address(field, wire)?),
        None => return Err(Fault::new(field, "it has neither a hostname nor an address")),
    };
    let hbone_mtls_port = match wire.hbone_mtls_port {
        0 => HBONE_PORT,
        given => port(field, given)?,
    };
    Ok(GatewayAddress { destination, hbone_mtls_port })
}

fn is_single(net: &IpNet) -> bool {
    net.prefix_len() == net.max_prefix_len()
}

/// A range on a network, or the one address that it is.
pub(super) enum Place {
    /// An address.
    One(NetworkAddress),
    /// A range.
    Range(mesh::NetworkCidr),
}

/// What a service claims: an address, or a range where a length says so.
pub(super) fn place(field: &'static str, wire: &wire::NetworkAddress) -> Result<Place, Fault> {
    let network = text(&wire.network);
    let Some(length) = wire.length else {
        return Ok(Place::One(NetworkAddress::new(network, ip(field, &wire.address)?)));
    };
    let cidr = range(field, &wire.address, length)?;
    Ok(if is_single(&cidr) {
        Place::One(NetworkAddress::new(network, cidr.addr()))
    } else {
        Place::Range(mesh::NetworkCidr { network, cidr })
    })
}
