//! A wire between two network namespaces, for tests on machines that have no `ip`.
//!
//! The links go with their namespaces; nothing here removes them.

use std::net::IpAddr;
use std::os::fd::{AsFd as _, AsRawFd as _};

use futures_util::TryStreamExt as _;
use netlink_packet_route::address::AddressHeaderFlags;
use rtnetlink::{Handle, LinkUnspec, LinkVeth};

use super::{NetlinkError, kernel, with_handle};
use crate::netns::Netns;

/// One end of the wire.
#[derive(Clone, Copy, Debug)]
pub struct End<'a> {
    /// The namespace it lies in.
    pub netns: &'a Netns,
    /// Name of the interface; the two ends need different ones.
    pub name: &'a str,
    /// Its addresses, each with the length of its prefix; usable at once (no duplicate address detection).
    pub addresses: &'a [(IpAddr, u8)],
}

/// Connects two namespaces and brings both ends up.
pub fn connect(one: End<'_>, other: End<'_>) -> Result<(), NetlinkError> {
    with_handle(one.netns, async |handle| {
        let pair = LinkVeth::new(one.name, other.name).build();
        handle.link().add(pair).execute().await.map_err(kernel("add a veth pair"))?;
        let moved =
            LinkUnspec::new_with_name(other.name).setns_by_fd(other.netns.as_fd().as_raw_fd()).build();
        handle.link().set(moved).execute().await.map_err(kernel("move an end of the veth pair"))
    })?;
    [one, other].iter().try_for_each(set_up)
}

fn set_up(end: &End<'_>) -> Result<(), NetlinkError> {
    with_handle(end.netns, async |handle| {
        let index = index(&handle, end.name).await?;
        for (address, prefix) in end.addresses {
            let mut add = handle.address().add(index, *address, *prefix);
            add.message_mut().header.flags |= AddressHeaderFlags::Nodad;
            add.execute().await.map_err(kernel("add an address"))?;
        }
        let up = LinkUnspec::new_with_index(index).up().build();
        handle.link().set(up).execute().await.map_err(kernel("bring a veth up"))
    })
}

async fn index(handle: &Handle, name: &str) -> Result<u32, NetlinkError> {
    let mut links = handle.link().get().match_name(name.to_owned()).execute();
    let link = links.try_next().await.map_err(kernel("look up a veth"))?;
    // A name that is not there is the kernel's error, so an answer without a link does not come.
    Ok(link.map_or(0, |link| link.header.index))
}
