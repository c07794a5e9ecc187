//! The interfaces of a network namespace.

use netlink_packet_route::RouteNetlinkMessage;
use netlink_packet_route::link::{LinkAttribute, LinkFlags, LinkLayerType, LinkMessage};

use super::NetlinkError;
use super::exchange::Exchange;
use crate::netns::Netns;

/// `ARPHRD_IP6GRE` (`linux/if_arp.h`), of which the library has no name.
const IP6GRE: u16 = 823;

/// What a packet on its way out begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Frame {
    /// An Ethernet header.
    Ethernet,
    /// An IP header: tunnels, tun devices, WireGuard.
    Ip,
    /// Something else: the kernel's number of the hardware (`ARPHRD_*`).
    Other(u16),
}

/// An interface.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Interface {
    /// Its number, which is not given to another one in this namespace.
    pub index: u32,
    /// Its name.
    pub name: String,
    /// What its packets begin with.
    pub frame: Frame,
}

/// Every interface of a namespace but lo.
pub fn interfaces(netns: &Netns) -> Result<Vec<Interface>, NetlinkError> {
    let mut exchange = Exchange::open(netns)?;
    let question = RouteNetlinkMessage::GetLink(LinkMessage::default());
    let listed = exchange.list("list interfaces", question)?;
    let of_message = |message| match message {
        RouteNetlinkMessage::NewLink(link) if !link.header.flags.contains(LinkFlags::Loopback) => {
            Some(of_link(&link))
        }
        _ => None,
    };
    Ok(listed.into_iter().filter_map(of_message).collect())
}

fn of_link(link: &LinkMessage) -> Interface {
    let name = link.attributes.iter().find_map(|attribute| match attribute {
        LinkAttribute::IfName(name) => Some(name.clone()),
        _ => None,
    });
    let frame = match link.header.link_layer_type {
        LinkLayerType::Ether => Frame::Ethernet,
        LinkLayerType::None
        | LinkLayerType::Rawip
        | LinkLayerType::Ppp
        | LinkLayerType::Tunnel
        | LinkLayerType::Tunnel6
        | LinkLayerType::Sit
        | LinkLayerType::Ipgre => Frame::Ip,
        other => match u16::from(other) {
            IP6GRE => Frame::Ip,
            number => Frame::Other(number),
        },
    };
    Interface { index: link.header.index, name: name.unwrap_or_default(), frame }
}
