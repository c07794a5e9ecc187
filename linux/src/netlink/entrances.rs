//! Rules by which TCP that arrives at an interface of the namespace is delivered locally, wherever it is to go.
//!
//! They lead into the table of a [`MarkRoute`], and are asked right after its own rule. One for an interface that is not there comes into
//! force when the interface does.

use std::collections::BTreeSet;

use netlink_packet_route::AddressFamily;
use netlink_packet_route::IpProtocol;
use netlink_packet_route::rule::{RuleAction, RuleAttribute, RuleMessage};
use rtnetlink::Handle;

use super::{MarkRoute, NetlinkError, families, ignore_absent, is_errno, kernel, rules, with_handle};
use crate::netns::Netns;

/// Makes these interfaces, and no others, the ones at which TCP is delivered locally by the table of `route`.
pub fn set_entrances(netns: &Netns, route: MarkRoute, interfaces: &[String]) -> Result<(), NetlinkError> {
    with_handle(netns, async |handle| {
        for family in families() {
            let known = list(&handle, *family, route).await?;
            for gone in known.iter().filter(|known| !interfaces.contains(known)) {
                ignore_absent(handle.rule().del(rule(route, *family, gone)).execute().await)
                    .map_err(kernel("remove rule of an interface"))?;
            }
            for new in interfaces.iter().filter(|new| !known.contains(*new)) {
                let mut add = handle.rule().add();
                *add.message_mut() = rule(route, *family, new);
                match add.execute().await {
                    Err(error) if !is_errno(&error, libc::EEXIST) => {
                        return Err(kernel("add rule for an interface")(error));
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    })
}

async fn list(
    handle: &Handle,
    family: AddressFamily,
    route: MarkRoute,
) -> Result<BTreeSet<String>, NetlinkError> {
    let rules = rules(handle, family).await?;
    Ok(rules.iter().filter_map(|rule| entrance(rule, route)).map(str::to_owned).collect())
}

/// The interface of such a rule.
pub(super) fn entrance(rule: &RuleMessage, route: MarkRoute) -> Option<&str> {
    let has = |wanted: RuleAttribute| rule.attributes.contains(&wanted);
    let is_one = rule.header.action == RuleAction::ToTable
        && has(RuleAttribute::Priority(priority(route)))
        && has(RuleAttribute::Table(route.table))
        && has(RuleAttribute::IpProtocol(IpProtocol::Tcp));
    rule.attributes.iter().filter(|_| is_one).find_map(|attribute| match attribute {
        RuleAttribute::Iifname(name) => Some(name.as_str()),
        _ => None,
    })
}

const fn priority(route: MarkRoute) -> u32 {
    route.priority + 1
}

fn rule(route: MarkRoute, family: AddressFamily, interface: &str) -> RuleMessage {
    let mut message = RuleMessage::default();
    message.header.family = family;
    message.header.action = RuleAction::ToTable;
    message.attributes = vec![
        RuleAttribute::Table(route.table),
        RuleAttribute::Priority(priority(route)),
        RuleAttribute::Iifname(interface.to_owned()),
        RuleAttribute::IpProtocol(IpProtocol::Tcp),
    ];
    message
}
