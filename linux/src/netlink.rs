//! Addresses, policy rules and routes of a network namespace, over rtnetlink.
//!
//! Each function works in the namespace it is given and waits for the kernel's answer on the calling thread, so it belongs
//! on a thread that may block. Adding what is there and removing what is not are no errors: these are states, not steps.

mod entrances;
mod exchange;
pub mod interfaces;
#[cfg(feature = "veth")]
pub mod netem;
mod state;
pub mod tc;
#[cfg(feature = "veth")]
pub mod veth;

use std::io;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::path::Path;

use futures_util::TryStreamExt as _;
use netlink_packet_route::AddressFamily;
use netlink_packet_route::link::LinkFlags;
use netlink_packet_route::route::{RouteMessage, RouteScope, RouteType};
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use rtnetlink::{Handle, IpVersion, LinkUnspec, RouteMessageBuilder};
use thiserror::Error;

use crate::netns::{Netns, NetnsError};

pub use entrances::set_entrances;
pub use state::{FamilyState, State, TableRoute, state};

/// The loopback interface has the same index in every namespace.
const LOOPBACK: u32 = 1;

/// What went wrong with the kernel's routing.
#[derive(Debug, Error)]
pub enum NetlinkError {
    /// The namespace could not be entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// No netlink socket.
    #[error("netlink socket: {0}")]
    Socket(#[from] io::Error),
    /// The kernel refused.
    #[error("{operation}: {source}")]
    Kernel {
        /// What was asked.
        operation: &'static str,
        /// Its answer.
        source: rtnetlink::Error,
    },
}

impl NetlinkError {
    /// The kernel's error, if it refused.
    pub fn errno(&self) -> Option<i32> {
        match self {
            Self::Kernel { source: rtnetlink::Error::NetlinkError(message), .. } => Some(-message.raw_code()),
            _ => None,
        }
    }
}

/// A rule by mark, and a table whose only route delivers everything locally.
#[derive(Clone, Copy, Debug)]
pub struct MarkRoute {
    /// Value of the mark.
    pub mark: u32,
    /// Bits of the mark that count.
    pub mask: u32,
    /// The table.
    pub table: u32,
    /// Preference of the rule.
    pub priority: u32,
}

/// Source addresses that connections over a [`MarkRoute`] get; a family without one is made unreachable instead.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sources {
    /// For IPv4.
    pub v4: Option<Ipv4Addr>,
    /// For IPv6.
    pub v6: Option<Ipv6Addr>,
}

/// Every address of the namespace but the loopback addresses; those of lo come last.
pub fn addresses(netns: &Netns) -> Result<Vec<IpAddr>, NetlinkError> {
    with_handle(netns, async |handle| {
        let messages: Vec<_> =
            handle.address().get().execute().try_collect().await.map_err(kernel("list addresses"))?;
        Ok(state::in_order(messages.into_iter()))
    })
}

/// Brings the loopback interface up.
pub fn loopback_up(netns: &Netns) -> Result<(), NetlinkError> {
    with_handle(netns, async |handle| {
        let mut links = handle.link().get().match_index(LOOPBACK).execute();
        let link = links.try_next().await.map_err(kernel("look up lo"))?;
        if link.is_some_and(|link| link.header.flags.contains(LinkFlags::Up)) {
            return Ok(());
        }
        let up = LinkUnspec::new_with_index(LOOPBACK).up().build();
        handle.link().set(up).execute().await.map_err(kernel("bring lo up"))
    })
}

/// Adds the rule and the route in each family that the kernel has.
pub fn add_mark_route(netns: &Netns, route: MarkRoute, sources: Sources) -> Result<(), NetlinkError> {
    with_handle(netns, async |handle| {
        // The route first: a rule whose table is empty would let marked packets fall through to the main table.
        for family in families() {
            let message = local_route(*family, route, sources);
            let added = handle.route().add(message).replace().execute().await;
            added.map_err(kernel("add route to the agent"))?;
        }
        for family in families() {
            let mut add = handle.rule().add();
            *add.message_mut() = rule(route, *family);
            match add.execute().await {
                Err(error) if !is_errno(&error, libc::EEXIST) => {
                    return Err(kernel("add rule for marked packets")(error));
                }
                _ => {}
            }
        }
        Ok(())
    })
}

/// Removes the rule and the route in each family.
pub fn remove_mark_route(netns: &Netns, route: MarkRoute) -> Result<(), NetlinkError> {
    with_handle(netns, async |handle| {
        for family in families() {
            ignore_absent(handle.rule().del(rule(route, *family)).execute().await)
                .map_err(kernel("remove rule for marked packets"))?;
        }
        for family in families() {
            let mut message = local_route(*family, route, Sources::default());
            // Whichever kind it is: a deletion without a kind matches any.
            message.header.kind = RouteType::Unspec;
            message.header.scope = RouteScope::NoWhere;
            ignore_absent(handle.route().del(message).execute().await)
                .map_err(kernel("remove route to the agent"))?;
        }
        Ok(())
    })
}

/// Makes the addresses of a prefix the namespace's own, without giving them to an interface; nothing where the kernel has no
/// IPv6.
pub fn add_local_prefix(netns: &Netns, prefix: (Ipv6Addr, u8)) -> Result<(), NetlinkError> {
    if !families().contains(&AddressFamily::Inet6) {
        return Ok(());
    }
    with_handle(netns, async |handle| {
        let added = handle.route().add(local_prefix(prefix)).replace().execute().await;
        added.map_err(kernel("add local prefix"))
    })
}

/// Undoes [`add_local_prefix`].
pub fn remove_local_prefix(netns: &Netns, prefix: (Ipv6Addr, u8)) -> Result<(), NetlinkError> {
    if !families().contains(&AddressFamily::Inet6) {
        return Ok(());
    }
    with_handle(netns, async |handle| {
        ignore_absent(handle.route().del(local_prefix(prefix)).execute().await)
            .map_err(kernel("remove local prefix"))
    })
}

fn local_prefix((address, length): (Ipv6Addr, u8)) -> RouteMessage {
    RouteMessageBuilder::<Ipv6Addr>::new()
        .table_id(u32::from(libc::RT_TABLE_LOCAL))
        .kind(RouteType::Local)
        .output_interface(LOOPBACK)
        .destination_prefix(address, length)
        .build()
}

/// Whether the rule is there in each family (the table's route cannot be lost without it being flushed by name).
pub fn has_mark_rule(netns: &Netns, route: MarkRoute) -> Result<bool, NetlinkError> {
    with_handle(netns, async |handle| {
        for family in families() {
            if !rules(&handle, *family).await?.iter().any(|rule| is_ours(rule, route)) {
                return Ok(false);
            }
        }
        Ok(true)
    })
}

/// Whether somebody sends packets of this mark to this table, in any family and at any place.
pub fn has_rule_to(netns: &Netns, mark: u32, table: u32) -> Result<bool, NetlinkError> {
    let is_it = |rule: &RuleMessage| {
        [RuleAttribute::FwMark(mark), RuleAttribute::Table(table)]
            .iter()
            .all(|wanted| rule.attributes.contains(wanted))
    };
    with_handle(netns, async |handle| {
        for family in families() {
            if rules(&handle, *family).await?.iter().any(is_it) {
                return Ok(true);
            }
        }
        Ok(false)
    })
}

/// All rules of a family.
async fn rules(handle: &Handle, family: AddressFamily) -> Result<Vec<RuleMessage>, NetlinkError> {
    let version = if family == AddressFamily::Inet6 { IpVersion::V6 } else { IpVersion::V4 };
    handle.rule().get(version).execute().try_collect().await.map_err(kernel("list rules"))
}

/// The families that the kernel has: IPv6 can be switched off when it boots, and then it answers each message about it
/// with another error, or with none.
fn families() -> &'static [AddressFamily] {
    const BOTH: &[AddressFamily] = &[AddressFamily::Inet, AddressFamily::Inet6];
    if Path::new("/proc/sys/net/ipv6").exists() { BOTH } else { &[AddressFamily::Inet] }
}

fn is_ours(rule: &RuleMessage, route: MarkRoute) -> bool {
    let has = |wanted: RuleAttribute| rule.attributes.contains(&wanted);
    has(RuleAttribute::FwMark(route.mark)) && has(RuleAttribute::Priority(route.priority))
}

fn rule(route: MarkRoute, family: AddressFamily) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = family;
    message.header.action = RuleAction::ToTable;
    message.attributes = vec![
        RuleAttribute::Table(route.table),
        RuleAttribute::Priority(route.priority),
        RuleAttribute::FwMark(route.mark),
        RuleAttribute::FwMask(route.mask),
    ];
    message
}

fn local_route(family: AddressFamily, route: MarkRoute, sources: Sources) -> RouteMessage {
    if family == AddressFamily::Inet6 { route_v6(route, sources.v6) } else { route_v4(route, sources.v4) }
}

fn route_v4(route: MarkRoute, source: Option<Ipv4Addr>) -> RouteMessage {
    let builder = RouteMessageBuilder::<Ipv4Addr>::new().table_id(route.table);
    match source {
        Some(source) => builder
            .kind(RouteType::Local)
            .scope(RouteScope::Host)
            .output_interface(LOOPBACK)
            .pref_source(source)
            .build(),
        None => builder.kind(RouteType::Unreachable).build(),
    }
}

fn route_v6(route: MarkRoute, source: Option<Ipv6Addr>) -> RouteMessage {
    let builder = RouteMessageBuilder::<Ipv6Addr>::new().table_id(route.table);
    match source {
        Some(source) => builder.kind(RouteType::Local).output_interface(LOOPBACK).pref_source(source).build(),
        None => builder.kind(RouteType::Unreachable).output_interface(LOOPBACK).build(),
    }
}

fn ignore_absent(done: Result<(), rtnetlink::Error>) -> Result<(), rtnetlink::Error> {
    match done {
        Err(error) if is_errno(&error, libc::ENOENT) || is_errno(&error, libc::ESRCH) => Ok(()),
        other => other,
    }
}

fn is_errno(error: &rtnetlink::Error, errno: i32) -> bool {
    matches!(error, rtnetlink::Error::NetlinkError(message) if message.raw_code() == -errno)
}

fn kernel(operation: &'static str) -> impl FnOnce(rtnetlink::Error) -> NetlinkError {
    move |source| NetlinkError::Kernel { operation, source }
}

/// Opens a netlink socket in the namespace and drives it until `work` is done.
fn with_handle<T>(
    netns: &Netns,
    work: impl AsyncFnOnce(Handle) -> Result<T, NetlinkError>,
) -> Result<T, NetlinkError> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    runtime.block_on(async {
        // The socket belongs to the namespace in which it is made; the thread need not stay there.
        let (connection, handle, _) = netns.run(rtnetlink::new_connection)??;
        let driver = tokio::spawn(connection);
        let done = work(handle).await;
        driver.abort();
        done
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROUTE: MarkRoute = MarkRoute { mark: 0xc17, mask: 0xfff, table: 0xc17, priority: 32 };

    fn scratch() -> Netns {
        std::thread::spawn(|| {
            nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWNET).expect("this test needs root");
            Netns::current().unwrap()
        })
        .join()
        .unwrap()
    }

    #[test]
    fn a_mark_route_comes_and_goes_and_both_twice() {
        let netns = scratch();
        loopback_up(&netns).unwrap();
        let sources = Sources { v4: Some(Ipv4Addr::LOCALHOST), v6: Some(Ipv6Addr::LOCALHOST) };
        assert!(!has_mark_rule(&netns, ROUTE).unwrap());
        for _ in 0..2 {
            add_mark_route(&netns, ROUTE, sources).unwrap();
            assert!(has_mark_rule(&netns, ROUTE).unwrap());
        }
        for _ in 0..2 {
            remove_mark_route(&netns, ROUTE).unwrap();
            assert!(!has_mark_rule(&netns, ROUTE).unwrap());
        }
        // A family without a source is unreachable; that goes as well.
        add_mark_route(&netns, ROUTE, Sources { v4: None, v6: None }).unwrap();
        assert!(has_mark_rule(&netns, ROUTE).unwrap());
        let routes: Vec<_> = state(&netns, ROUTE, None).unwrap().families.iter().map(|f| f.route).collect();
        assert!(routes.iter().all(|route| *route == TableRoute::Unreachable), "{routes:?}");
        remove_mark_route(&netns, ROUTE).unwrap();
        assert!(addresses(&netns).unwrap().is_empty());
    }

    #[test]
    fn entrances_are_those_that_were_named_last() {
        let netns = scratch();
        loopback_up(&netns).unwrap();
        let sources = Sources { v4: Some(Ipv4Addr::LOCALHOST), v6: Some(Ipv6Addr::LOCALHOST) };
        add_mark_route(&netns, ROUTE, sources).unwrap();
        for names in [&["tap0", "k6t-eth0"][..], &["tap0"], &["tap0"], &[]] {
            let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
            set_entrances(&netns, ROUTE, &names).unwrap();
            let wanted = names.into_iter().collect();
            for family in state(&netns, ROUTE, None).unwrap().families {
                assert_eq!(family.entrances, wanted);
                assert!(family.has_rule && family.in_front.is_empty(), "{family:?}");
            }
        }
    }

    #[test]
    fn the_state_tells_what_is_there_and_what_is_in_front() {
        let netns = scratch();
        let bare = state(&netns, ROUTE, None).unwrap();
        assert!(!bare.loopback_up && bare.addresses.is_empty());
        assert!(bare.families.iter().all(|f| !f.has_rule && f.route == TableRoute::Nothing), "{bare:?}");

        loopback_up(&netns).unwrap();
        let sources = Sources { v4: Some(Ipv4Addr::LOCALHOST), v6: Some(Ipv6Addr::LOCALHOST) };
        add_mark_route(&netns, ROUTE, sources).unwrap();
        let whole = state(&netns, ROUTE, None).unwrap();
        assert!(whole.loopback_up);
        for family in &whole.families {
            let source: IpAddr =
                if family.is_v6 { Ipv6Addr::LOCALHOST.into() } else { Ipv4Addr::LOCALHOST.into() };
            let route = TableRoute::Local { source: Some(source) };
            let expected = FamilyState {
                is_v6: family.is_v6,
                has_rule: true,
                in_front: Vec::new(),
                entrances: Default::default(),
                route,
            };
            assert_eq!(*family, expected);
        }
        // Another mask is another rule, and one that is asked first is told.
        let other = MarkRoute { mask: 0xffff, ..ROUTE };
        assert!(state(&netns, other, None).unwrap().families.iter().all(|f| !f.has_rule));
        let first = MarkRoute { priority: 31, table: 7, ..ROUTE };
        add_mark_route(&netns, first, sources).unwrap();
        assert!(state(&netns, ROUTE, None).unwrap().families.iter().all(|f| f.in_front == [31]));
    }
}
