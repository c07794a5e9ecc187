//! The lines about a pod's routing and settings: what is compared with what, and the words for a difference.

use std::net::IpAddr;
use std::path::Path;

use linux::netlink::{FamilyState, State, TableRoute};
use linux::netns::Netns;
use linux::sysctl;

use super::unseen;
use crate::attachment::{ROUTE, first_routable};
use crate::report::{Line, Part, Problem};

/// What the pod's namespace must have, and why it is looked at.
pub(crate) const SYSCTLS: [&str; 3] =
    ["net.ipv4.tcp_fwmark_accept", "net.ipv4.fwmark_reflect", "net.ipv6.fwmark_reflect"];

/// Of a namespace whose pod was captured with `addresses`.
pub(super) fn lines(state: &State, addresses: &[IpAddr]) -> Vec<Line> {
    let loopback = if state.loopback_up {
        Ok(())
    } else {
        Err(Problem::new(
            "it is down: nothing reaches the agent",
            "the agent brings it up; by hand: ip link set lo up",
        ))
    };
    let mut lines = vec![Line::new(Part::Loopback, "loopback interface", loopback)];
    for family in &state.families {
        let version = if family.is_v6 { "IPv6" } else { "IPv4" };
        lines.push(Line::new(Part::Rule, format!("ip rule, {version}"), rule(family)));
        let source = first_routable(addresses, family.is_v6);
        lines.push(Line::new(Part::Route, format!("route to the agent, {version}"), route(family, source)));
    }
    lines
}

/// Of the prefix that takes DNS queries over IPv6.
pub(super) fn dns_prefix(state: &State) -> Result<(), Problem> {
    if state.has_prefix {
        return Ok(());
    }
    Err(Problem::new(
        "it is gone: DNS queries over IPv6 find nobody",
        "the agent adds it again; if it is lost again, look for who flushes the local table in the pod",
    ))
}

fn rule(family: &FamilyState) -> Result<(), Problem> {
    let option = if family.is_v6 { " -6" } else { "" };
    if !family.has_rule {
        let (mark, mask) = (ROUTE.mark, ROUTE.mask);
        let remedy = format!(
            "the agent adds it; by hand: ip{option} rule add fwmark {mark:#x}/{mask:#x} lookup {} pref {}; if it is lost \
             again, look for who flushes rules in the pod",
            ROUTE.table, ROUTE.priority
        );
        return Err(Problem::new("it is gone: marked connections do not reach the agent", remedy));
    }
    if !family.in_front.is_empty() {
        let what = format!(
            "rules of somebody else are asked first (preference {:?}) and may lead connections past the agent",
            family.in_front
        );
        let remedy =
            format!("remove them, or give them a preference above {}: ip{option} rule", ROUTE.priority);
        return Err(Problem::new(what, remedy));
    }
    Ok(())
}

fn route(family: &FamilyState, source: Option<IpAddr>) -> Result<(), Problem> {
    let expected = match source {
        Some(_) => TableRoute::Local { source },
        None => TableRoute::Unreachable,
    };
    if family.route == expected {
        return Ok(());
    }
    let option = if family.is_v6 { " -6" } else { "" };
    let what = match family.route {
        TableRoute::Nothing => "it is gone: marked connections go the way of the main table".to_owned(),
        TableRoute::Local { source: Some(other) } => format!("it gives connections the source {other}"),
        TableRoute::Local { source: None } => "it gives connections no source".to_owned(),
        TableRoute::Unreachable => "it makes everything unreachable".to_owned(),
        TableRoute::Other => format!("somebody put other routes into table {}", ROUTE.table),
    };
    let route = match source {
        Some(source) => format!("local default dev lo src {source}"),
        None => "unreachable default".to_owned(),
    };
    let table = ROUTE.table;
    let remedy = format!(
        "the agent adds it; by hand: ip{option} route flush table {table}; ip{option} route add {route} table {table}"
    );
    Err(Problem::new(what, remedy))
}

/// Of a namespace's settings.
pub(super) fn sysctls(netns: &Netns) -> Vec<Line> {
    let has_v6 = Path::new("/proc/sys/net/ipv6").exists();
    let wanted = SYSCTLS.into_iter().filter(|name| has_v6 || !name.contains("ipv6"));
    let look = |name: &'static str| match sysctl::get(name) {
        Ok(value) if value == "1" => Ok(()),
        Ok(value) => Err(Problem::new(
            format!("it is {value} and must be 1: connections to the pod's application hang"),
            format!(
                "the agent sets it; by hand: sysctl -w {name}=1; if it is lost again, look for who resets it"
            ),
        )),
        Err(error) => Err(unseen(&error)),
    };
    let entered = netns.run(|| {
        wanted.map(|name| Line::new(Part::Sysctl, format!("sysctl {name}"), look(name))).collect::<Vec<_>>()
    });
    entered.unwrap_or_else(|error| vec![Line::new(Part::Sysctl, "sysctls", Err(unseen(&error)))])
}
