//! The capture of one pod: made by [`Attachment::attach`], ended by [`Attachment::release`].
//!
//! Dropping an attachment detaches nothing: an agent that ends leaves its pods captured, and refused, until the next one
//! attaches again.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use abi::{CAPTURE_MARK, Direction, MARK_MASK, PodAddress, ROUTE_TABLE, RULE_PRIORITY, map, program};
use aya::maps::{HashMap, SockMap};
use aya::programs::SkLookup;
use aya::programs::links::FdLink;
use linux::netlink::{self, MarkRoute, Sources};
use linux::netns::Netns;
use linux::{bpffs, sysctl};

use crate::error::CaptureError;
use crate::listeners::Listeners;
use crate::node::NodeCapture;
use crate::pins::pin_link;
use crate::sockets::PodSockets;

/// The route by which marked packets reach the agent.
pub const ROUTE: MarkRoute =
    MarkRoute { mark: CAPTURE_MARK, mask: MARK_MASK, table: ROUTE_TABLE, priority: RULE_PRIORITY };

/// `PodAddress` as aya wants it.
#[derive(Clone, Copy, Debug)]
#[repr(transparent)]
struct Key(PodAddress);

// SAFETY: a transparent wrapper of four u32 without padding; every bit pattern is valid.
unsafe impl aya::Pod for Key {}

/// One captured pod.
#[derive(Debug)]
pub struct Attachment {
    cookie: u64,
    netns: Netns,
    addresses: Vec<IpAddr>,
    directory: PathBuf,
    sockets: Arc<PodSockets>,
}

impl Attachment {
    /// Captures the pod in `netns`; blocks for some milliseconds, so it belongs on a thread that may.
    ///
    /// Connections that are open go on undisturbed. On an error nothing of this attempt stays behind; an earlier agent's
    /// capture of the same pod does.
    pub fn attach(node: &NodeCapture, netns: Netns) -> Result<(Self, Listeners), CaptureError> {
        let cookie = netns.cookie()?;
        let addresses: Vec<IpAddr> = netlink::addresses(&netns)?;
        if !addresses.iter().any(is_routable) {
            return Err(CaptureError::NoAddress);
        }
        let directory = node.pins().pod(cookie);
        let fresh = !directory.exists();
        let sockets = Arc::new(PodSockets::new(node, netns.try_clone()?, addresses.clone())?);
        let attachment = Self { cookie, netns, addresses, directory, sockets };
        match attachment.build(node) {
            Ok(listeners) => Ok((attachment, listeners)),
            Err(error) => {
                if fresh {
                    attachment.undo(node);
                }
                Err(error)
            }
        }
    }

    fn build(&self, node: &NodeCapture) -> Result<Listeners, CaptureError> {
        netlink::loopback_up(&self.netns)?;
        let listeners = Listeners::open(&self.netns)?;
        bpffs::ensure(&self.directory)?;
        let link = steer(node, &self.netns, &listeners, &self.addresses)?;
        pin_link(link, &self.directory, program::STEER)?;
        self.netns.run(settings)??;
        netlink::add_mark_route(&self.netns, ROUTE, self.sources())?;
        node.enrol(self.cookie, listeners.first(Direction::Outbound)?)?;
        Ok(listeners)
    }

    fn undo(&self, node: &NodeCapture) {
        // The first error is the one to report; here each step is tried whatever became of the others.
        for outcome in [node.forget(self.cookie), self.remove_route()] {
            if let Err(error) = outcome {
                tracing::warn!(cookie = self.cookie, %error, "a failed capture left something behind");
            }
        }
    }

    /// The kernel's number of the pod's namespace.
    pub fn cookie(&self) -> u64 {
        self.cookie
    }

    /// The pod's namespace.
    pub fn netns(&self) -> &Netns {
        &self.netns
    }

    /// The pod's addresses, as they are in its namespace.
    pub fn addresses(&self) -> &[IpAddr] {
        &self.addresses
    }

    /// Makes the agent's sockets in the pod.
    pub fn sockets(&self) -> Arc<PodSockets> {
        Arc::clone(&self.sockets)
    }

    /// Checks that everything is still in place, without sending anything.
    pub fn inspect(&self, node: &NodeCapture) -> Result<(), CaptureError> {
        let lost = |what: &str| Err(CaptureError::NotCaptured(what.to_owned()));
        if !node.is_enrolled(self.cookie) {
            return lost("the pod's row in the map of enrolled namespaces is gone");
        }
        if !self.directory.join(program::STEER).exists() {
            return lost("the link of the sk_lookup program is gone from the BPF file system");
        }
        if !netlink::has_mark_rule(&self.netns, ROUTE)? {
            return lost("somebody removed the ip rule that leads marked packets to the agent");
        }
        Ok(())
    }

    /// Stops capturing at once. Connections that are captured go on, so the route stays until [`Self::remove_route`].
    pub fn release(&self, node: &NodeCapture) -> Result<(), CaptureError> {
        node.forget(self.cookie)
    }

    /// Removes the policy route; to be called when the last captured connection has ended.
    pub fn remove_route(&self) -> Result<(), CaptureError> {
        Ok(netlink::remove_mark_route(&self.netns, ROUTE)?)
    }

    fn sources(&self) -> Sources {
        let v4 = self.addresses.iter().find_map(|a| match a {
            IpAddr::V4(v4) if is_routable(a) => Some(*v4),
            _ => None,
        });
        let v6 = self.addresses.iter().find_map(|a| match a {
            IpAddr::V6(v6) if is_routable(a) => Some(*v6),
            _ => None,
        });
        Sources { v4, v6 }
    }
}

/// Removes what another agent left of a pod: its row, its pins and, where the namespace is still there, its route.
pub fn forget(node: &NodeCapture, cookie: u64, netns: Option<&Netns>) -> Result<(), CaptureError> {
    node.forget(cookie)?;
    if let Some(netns) = netns {
        netlink::remove_mark_route(netns, ROUTE)?;
    }
    Ok(())
}

/// Neither loopback nor link-local.
fn is_routable(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local(),
    }
}

/// Loads the pod's own instance of `steer`, gives it listeners and addresses, and attaches it.
fn steer(
    node: &NodeCapture,
    netns: &Netns,
    listeners: &Listeners,
    addresses: &[IpAddr],
) -> Result<FdLink, CaptureError> {
    let mut object = node.load_pod()?;
    let own = object.map_mut(map::ADDRESSES).ok_or(CaptureError::Missing(map::ADDRESSES))?;
    let mut own = HashMap::<_, Key, u32>::try_from(own).map_err(CaptureError::map(map::ADDRESSES))?;
    for address in addresses.iter().take(abi::MAX_ADDRESSES as usize) {
        own.insert(Key(PodAddress::from(*address)), 0, 0).map_err(CaptureError::map(map::ADDRESSES))?;
    }
    let slots = object.map_mut(map::LISTENERS).ok_or(CaptureError::Missing(map::LISTENERS))?;
    let mut slots = SockMap::try_from(slots).map_err(CaptureError::map(map::LISTENERS))?;
    for (listener, socket) in listeners.iter() {
        slots.set(listener.index(), socket, 0).map_err(CaptureError::map(map::LISTENERS))?;
    }
    let name = program::STEER;
    let program = object.program_mut(name).ok_or(CaptureError::Missing(name))?;
    let program: &mut SkLookup = program.try_into().map_err(CaptureError::program(name))?;
    program.load().map_err(CaptureError::program(name))?;
    let id = program.attach(netns).map_err(CaptureError::program(name))?;
    let link = program.take_link(id).map_err(CaptureError::program(name))?;
    Ok(FdLink::from(link))
}

/// Settings of the pod's namespace; called inside it.
fn settings() -> Result<(), CaptureError> {
    // What the application accepts from the agent inherits the mark, so that its replies come back.
    sysctl::set("net.ipv4.tcp_fwmark_accept", "1")?;
    // So does the reset of a closed port; without it the agent would wait for its time-out.
    sysctl::set("net.ipv4.fwmark_reflect", "1")?;
    if Path::new("/proc/sys/net/ipv6").exists() {
        sysctl::set("net.ipv6.fwmark_reflect", "1")?;
    }
    Ok(())
}
