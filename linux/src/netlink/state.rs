//! How a namespace's routing is: what an inspection of a [`MarkRoute`] needs to know, in one visit.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};

use netlink_packet_route::address::{AddressAttribute, AddressMessage};
use netlink_packet_route::link::{LinkFlags, LinkMessage};
use netlink_packet_route::route::{RouteAddress, RouteAttribute, RouteMessage, RouteType};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use netlink_packet_route::{AddressFamily, RouteNetlinkMessage};

use super::entrances::entrance;
use super::exchange::Exchange;
use super::{LOOPBACK, MarkRoute, NetlinkError, families};
use crate::netns::Netns;

/// A namespace's routing, as far as a [`MarkRoute`] depends on it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct State {
    /// Every address but loopback's.
    pub addresses: Vec<IpAddr>,
    /// Is the loopback interface up?
    pub loopback_up: bool,
    /// Is the prefix that was asked for the namespace's own? True where the kernel has no IPv6.
    pub has_prefix: bool,
    /// Each family that the kernel has, IPv4 first.
    pub families: Vec<FamilyState>,
}

/// One family's part.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FamilyState {
    /// IPv6, else IPv4.
    pub is_v6: bool,
    /// Whether the rule is there, with its mark, mask, table and preference.
    pub has_rule: bool,
    /// Preferences of rules that the kernel asks before ours; its own for the `local` table is none of them.
    pub in_front: Vec<u32>,
    /// Interfaces whose TCP is led into the table, whether they are there or not.
    pub entrances: BTreeSet<String>,
    /// What the table holds.
    pub route: TableRoute,
}

/// What a table of one route holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TableRoute {
    /// Nothing.
    Nothing,
    /// Everything is delivered locally, over lo.
    Local {
        /// The source address that connections get.
        source: Option<IpAddr>,
    },
    /// Nothing can be reached.
    Unreachable,
    /// Something that is not ours.
    Other,
}

/// Looks at everything once; `prefix` is one that [`super::add_local_prefix`] added, if one should be there.
pub fn state(netns: &Netns, route: MarkRoute, prefix: Option<(Ipv6Addr, u8)>) -> Result<State, NetlinkError> {
    let mut exchange = Exchange::open(netns)?;
    let addresses = addresses(&mut exchange)?;
    let loopback_up = loopback_up(&mut exchange)?;
    let has_prefix = prefix.map_or(Ok(true), |prefix| has_prefix(&mut exchange, prefix))?;
    let mut of_families = Vec::new();
    for family in families() {
        let Rules { has_rule, in_front, entrances } = rules(&mut exchange, *family, route)?;
        let table = table(&mut exchange, *family, route.table)?;
        let is_v6 = *family == AddressFamily::Inet6;
        of_families.push(FamilyState { is_v6, has_rule, in_front, entrances, route: table });
    }
    Ok(State { addresses, loopback_up, has_prefix, families: of_families })
}

fn addresses(exchange: &mut Exchange) -> Result<Vec<IpAddr>, NetlinkError> {
    let question = RouteNetlinkMessage::GetAddress(AddressMessage::default());
    let listed = exchange.list("list addresses", question)?;
    let of_message = |message: RouteNetlinkMessage| match message {
        RouteNetlinkMessage::NewAddress(message) => Some(message),
        _ => None,
    };
    Ok(in_order(listed.into_iter().filter_map(of_message)))
}

/// The namespace's own addresses: those of its interfaces first, then what lo has besides the loopback addresses (a
/// service's address that the pod answers for).
pub(super) fn in_order(messages: impl Iterator<Item = AddressMessage>) -> Vec<IpAddr> {
    let of_message = |message: AddressMessage| Some((message.header.index == LOOPBACK, own(&message)?));
    let mut found: Vec<(bool, IpAddr)> =
        messages.filter_map(of_message).filter(|(_, address)| !address.is_loopback()).collect();
    found.sort_by_key(|(on_loopback, _)| *on_loopback);
    found.into_iter().map(|(_, address)| address).collect()
}

/// IFA_LOCAL is the interface's own address; IFA_ADDRESS is the peer's on point-to-point links.
fn own(message: &AddressMessage) -> Option<IpAddr> {
    let local = message.attributes.iter().find_map(|a| match a {
        AddressAttribute::Local(address) => Some(*address),
        _ => None,
    });
    let address = message.attributes.iter().find_map(|a| match a {
        AddressAttribute::Address(address) => Some(*address),
        _ => None,
    });
    local.or(address)
}

fn loopback_up(exchange: &mut Exchange) -> Result<bool, NetlinkError> {
    let mut question = LinkMessage::default();
    question.header.index = LOOPBACK;
    let answer = exchange.one("look up lo", RouteNetlinkMessage::GetLink(question))?;
    Ok(
        matches!(answer, Some(RouteNetlinkMessage::NewLink(link)) if link.header.flags.contains(LinkFlags::Up)),
    )
}

/// The rules of a family.
#[derive(Default)]
struct Rules {
    has_rule: bool,
    in_front: Vec<u32>,
    entrances: BTreeSet<String>,
}

fn rules(exchange: &mut Exchange, family: AddressFamily, route: MarkRoute) -> Result<Rules, NetlinkError> {
    let mut question = RuleMessage::default();
    question.header.family = family;
    let mut found = Rules::default();
    for message in exchange.list("list rules", RouteNetlinkMessage::GetRule(question))? {
        let RouteNetlinkMessage::NewRule(rule) = message else { continue };
        // A rule without the attribute has preference 0.
        let preference = rule.attributes.iter().find_map(|a| match a {
            RuleAttribute::Priority(preference) => Some(*preference),
            _ => None,
        });
        let preference = preference.unwrap_or(0);
        found.entrances.extend(entrance(&rule, route).map(str::to_owned));
        if is_exactly(&rule, route) {
            found.has_rule = true;
        } else if preference <= route.priority && !is_kernels_local(&rule, preference) {
            found.in_front.push(preference);
        }
    }
    Ok(found)
}

fn is_exactly(rule: &RuleMessage, route: MarkRoute) -> bool {
    let has = |wanted: RuleAttribute| rule.attributes.contains(&wanted);
    rule.header.action == RuleAction::ToTable
        && rule.header.dst_len == 0
        && rule.header.src_len == 0
        && has(RuleAttribute::Priority(route.priority))
        && has(RuleAttribute::FwMark(route.mark))
        && has(RuleAttribute::FwMask(route.mask))
        && has(RuleAttribute::Table(route.table))
}

fn is_kernels_local(rule: &RuleMessage, preference: u32) -> bool {
    preference == 0
        && rule.header.action == RuleAction::ToTable
        && rule.attributes.contains(&RuleAttribute::Table(u32::from(libc::RT_TABLE_LOCAL)))
}

fn table(exchange: &mut Exchange, family: AddressFamily, table: u32) -> Result<TableRoute, NetlinkError> {
    let mut question = RouteMessage::default();
    question.header.address_family = family;
    question.attributes.push(RouteAttribute::Table(table));
    let mut found = TableRoute::Nothing;
    for message in exchange.list("list routes", RouteNetlinkMessage::GetRoute(question))? {
        let RouteNetlinkMessage::NewRoute(route) = message else { continue };
        let is_of_table = route.attributes.contains(&RouteAttribute::Table(table));
        if route.header.address_family == family && is_of_table {
            found = if found == TableRoute::Nothing { classify(&route) } else { TableRoute::Other };
        }
    }
    Ok(found)
}

fn has_prefix(exchange: &mut Exchange, (address, length): (Ipv6Addr, u8)) -> Result<bool, NetlinkError> {
    let family = AddressFamily::Inet6;
    if !families().contains(&family) {
        return Ok(true);
    }
    let table = u32::from(libc::RT_TABLE_LOCAL);
    let mut question = RouteMessage::default();
    question.header.address_family = family;
    question.attributes.push(RouteAttribute::Table(table));
    let is_it = |message: &RouteNetlinkMessage| {
        let RouteNetlinkMessage::NewRoute(route) = message else { return false };
        let has = |wanted: RouteAttribute| route.attributes.contains(&wanted);
        route.header.kind == RouteType::Local
            && route.header.destination_prefix_length == length
            && has(RouteAttribute::Destination(RouteAddress::Inet6(address)))
            && has(RouteAttribute::Oif(LOOPBACK))
            && has(RouteAttribute::Table(table))
    };
    Ok(exchange.list("list local routes", RouteNetlinkMessage::GetRoute(question))?.iter().any(is_it))
}

fn classify(route: &RouteMessage) -> TableRoute {
    if route.header.destination_prefix_length != 0 {
        return TableRoute::Other;
    }
    match route.header.kind {
        RouteType::Unreachable => TableRoute::Unreachable,
        RouteType::Local if route.attributes.contains(&RouteAttribute::Oif(LOOPBACK)) => {
            let source = route.attributes.iter().find_map(|a| match a {
                RouteAttribute::PrefSource(RouteAddress::Inet(v4)) => Some(IpAddr::V4(*v4)),
                RouteAttribute::PrefSource(RouteAddress::Inet6(v6)) => Some(IpAddr::V6(*v6)),
                _ => None,
            });
            TableRoute::Local { source }
        }
        _ => TableRoute::Other,
    }
}
