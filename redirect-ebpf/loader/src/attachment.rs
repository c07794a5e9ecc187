//! The capture of one pod: made by [`Attachment::attach`], ended by [`Attachment::release`].
//!
//! Dropping an attachment detaches nothing: an agent that ends leaves its pods captured, and refused, until the next one
//! attaches again.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv6Addr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use abi::{
    CAPTURE_MARK, Direction, Guarded, MARK_MASK, PodAddress, ROUTE_TABLE, RULE_PRIORITY, Row, Steering, map,
    program, settings,
};
use aya::maps::{Array, HashMap, MapData, PerCpuArray, SockMap};
use aya::programs::SkLookup;
use aya::programs::links::FdLink;
use linux::netlink::{self, MarkRoute, Sources, State};
use linux::netns::Netns;
use linux::{bpf, bpffs, sysctl};

use crate::egress::{self, Dropped, Egress};
use crate::entrances::Entrances;
use crate::error::CaptureError;
use crate::layouts::OtherLayouts;
use crate::listeners::Listeners;
use crate::node::{NodeCapture, Shared};
use crate::others;
use crate::pins::{Pins, pin_link};
use crate::report::Line;
use crate::sockets::PodSockets;

/// The route by which marked packets reach the agent.
pub const ROUTE: MarkRoute =
    MarkRoute { mark: CAPTURE_MARK, mask: MARK_MASK, table: ROUTE_TABLE, priority: RULE_PRIORITY };

/// What may differ from pod to pod.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PodOptions {
    /// DNS queries go to the agent.
    pub dns: bool,
    /// What does not come through the tunnel goes to the application as it comes.
    pub bypass_inbound: bool,
    /// TCP that goes past capture is dropped.
    pub guard: bool,
    /// Interfaces whose traffic counts as the application's: those of a virtual machine in the pod. They may come later.
    pub entrances: Vec<String>,
}

/// How often `steer` of a pod took which decision.
type Steered = PerCpuArray<MapData, u64>;

/// One captured pod.
pub struct Attachment {
    cookie: u64,
    netns: Netns,
    addresses: Vec<IpAddr>,
    directory: PathBuf,
    sockets: Arc<PodSockets>,
    options: PodOptions,
    steered: Mutex<Option<Steered>>,
    entrances: Mutex<Entrances>,
    egress: Option<Egress>,
    /// Settings that this attachment has switched on.
    sysctls: Mutex<Vec<&'static str>>,
}

impl Attachment {
    /// Captures the pod in `netns` as every pod is by default; see [`Self::attach_with`].
    pub fn attach(node: &NodeCapture, netns: Netns) -> Result<(Self, Listeners), CaptureError> {
        Self::attach_with(node, netns, PodOptions::default(), None)
    }

    /// Captures the pod in `netns`; blocks for some milliseconds, so it belongs on a thread that may.
    ///
    /// `inherited` are listeners that an agent before this one made in the pod, and perhaps still serves: those are used, and
    /// only what is missing is made.
    ///
    /// Connections that are open go on undisturbed. On an error nothing of this attempt stays behind; an earlier agent's
    /// capture of the same pod does.
    pub fn attach_with(
        node: &NodeCapture,
        netns: Netns,
        options: PodOptions,
        inherited: Option<Listeners>,
    ) -> Result<(Self, Listeners), CaptureError> {
        if netns.id() == Netns::current()?.id() {
            return Err(CaptureError::OwnNamespace);
        }
        let cookie = netns.cookie()?;
        let addresses: Vec<IpAddr> = netlink::addresses(&netns)?;
        if !addresses.iter().any(is_routable) {
            return Err(CaptureError::NoAddress);
        }
        // What arrives at an address that capture does not know goes past it.
        if addresses.len() > abi::MAX_ADDRESSES as usize {
            return Err(CaptureError::TooManyAddresses(addresses.len()));
        }
        let directory = node.pins().pod(cookie);
        refuse_other_installation(node, cookie, &netns)?;
        let fresh = !directory.exists();
        let sockets = Arc::new(PodSockets::new(node, netns.try_clone()?, addresses.clone())?);
        let egress =
            options.guard.then(|| Egress::load(node, netns.try_clone()?, directory.clone())).transpose()?;
        let entrances = Mutex::new(Entrances::new(&options.entrances));
        let (steered, sysctls) = (Mutex::default(), Mutex::default());
        let attachment = Self {
            cookie,
            netns,
            addresses,
            directory,
            sockets,
            options,
            steered,
            entrances,
            egress,
            sysctls,
        };
        match attachment.build(node, inherited, fresh) {
            Ok(listeners) => Ok((attachment, listeners)),
            Err(error) => {
                if fresh {
                    attachment.undo(node);
                }
                Err(error)
            }
        }
    }

    fn build(
        &self,
        node: &NodeCapture,
        inherited: Option<Listeners>,
        fresh: bool,
    ) -> Result<Listeners, CaptureError> {
        netlink::loopback_up(&self.netns)?;
        let listeners = match inherited {
            Some(mut listeners) => {
                listeners.complete(&self.netns, self.options.dns)?;
                listeners
            }
            None => Listeners::open(&self.netns, self.options.dns)?,
        };
        bpffs::ensure(&self.directory)?;
        let link = self.steer(node, &listeners)?;
        let before = bpf::open_pin(&self.directory.join(program::STEER));
        pin_link(link, &self.directory, program::STEER)?;
        if let Ok(before) = before {
            // Without its pin the kernel lets go of it some milliseconds later only, in which it would pass for that of
            // another installation. One that is detached already cannot be detached again.
            let _ = bpf::detach(&before);
        }
        self.set_sysctls()?;
        self.add_route()?;
        if !fresh && self.options.entrances.is_empty() {
            // Those of a capture that had some.
            netlink::set_entrances(&self.netns, ROUTE, &[])?;
        }
        self.add_dns_prefix()?;
        node.set_addresses(self.cookie, &self.addresses)?;
        node.enrol(self.cookie, listeners.first(Direction::Outbound)?, self.row(&listeners))?;
        self.enlist(node)?;
        // After the row: a connection that is opened in between would find its first segment dropped, and nobody to capture it.
        match self.egress {
            Some(_) => self.guard_egress()?,
            None => egress::remove(&self.netns, &self.directory)?,
        }
        Ok(listeners)
    }

    /// Loads the pod's own instance of `steer`, gives it listeners, addresses and settings, and attaches it.
    fn steer(&self, node: &NodeCapture, listeners: &Listeners) -> Result<FdLink, CaptureError> {
        let mut object = node.load_pod()?;
        let own = object.map_mut(map::ADDRESSES).ok_or(CaptureError::Missing(map::ADDRESSES))?;
        let mut own = HashMap::<_, Shared<PodAddress>, u32>::try_from(own)
            .map_err(CaptureError::map(map::ADDRESSES))?;
        for address in &self.addresses {
            own.insert(Shared(PodAddress::from(*address)), 0, 0)
                .map_err(CaptureError::map(map::ADDRESSES))?;
        }
        let slots = object.map_mut(map::LISTENERS).ok_or(CaptureError::Missing(map::LISTENERS))?;
        let mut slots = SockMap::try_from(slots).map_err(CaptureError::map(map::LISTENERS))?;
        for (direction, socket) in listeners.iter() {
            slots.set(direction.index(), socket, 0).map_err(CaptureError::map(map::LISTENERS))?;
        }
        let bits = object.map_mut(map::SETTINGS).ok_or(CaptureError::Missing(map::SETTINGS))?;
        let mut bits = Array::<_, u32>::try_from(bits).map_err(CaptureError::map(map::SETTINGS))?;
        let bypass = if self.options.bypass_inbound { settings::BYPASS_INBOUND } else { 0 };
        let entrances = if self.options.entrances.is_empty() { 0 } else { settings::HAS_ENTRANCES };
        bits.set(0, bypass | entrances, 0).map_err(CaptureError::map(map::SETTINGS))?;

        let name = program::STEER;
        let program = object.program_mut(name).ok_or(CaptureError::Missing(name))?;
        let program: &mut SkLookup = program.try_into().map_err(CaptureError::program(name))?;
        program.load().map_err(CaptureError::program(name))?;
        let id = program.attach(&self.netns).map_err(CaptureError::program(name))?;
        let link = program.take_link(id).map_err(CaptureError::program(name))?;

        if !self.options.entrances.is_empty() {
            let settings = object.take_map(map::SETTINGS).ok_or(CaptureError::Missing(map::SETTINGS))?;
            lock(&self.entrances).keep(settings)?;
        }
        let steered = object.take_map(map::STEERED).ok_or(CaptureError::Missing(map::STEERED))?;
        let steered = Steered::try_from(steered).map_err(CaptureError::map(map::STEERED))?;
        *self.steered.lock().unwrap_or_else(PoisonError::into_inner) = Some(steered);
        Ok(FdLink::from(link))
    }

    /// Makes this process known to the connect programs as the agent, if it is not; attaching does it too.
    pub fn enlist(&self, node: &NodeCapture) -> Result<(), CaptureError> {
        node.enlist(|| self.sockets.enlist())
    }

    /// What the node's programs are to know of the pod.
    pub(crate) fn row(&self, listeners: &Listeners) -> Row {
        Row::new(listeners.dns_port()).guarded(self.options.guard)
    }

    fn undo(&self, node: &NodeCapture) {
        // The first error is the one to report; here each step is tried whatever became of the others.
        for outcome in [self.release(node), self.put_back(&self.changed_sysctls())] {
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
        // First the guard: it would drop what is opened and no longer captured.
        let unguarded = egress::remove(&self.netns, &self.directory);
        // What comes in there from now on would find nobody; the application's own connections go on without these rules.
        let has_entrances = !self.options.entrances.is_empty();
        let closed = if has_entrances { netlink::set_entrances(&self.netns, ROUTE, &[]) } else { Ok(()) };
        node.forget(self.cookie)?;
        unguarded.and(closed.map_err(CaptureError::from))
    }

    /// Puts the egress guard on the pod's interfaces wherever it is missing, if the pod has one.
    pub(crate) fn guard_egress(&self) -> Result<(), CaptureError> {
        self.egress.as_ref().map_or(Ok(()), Egress::ensure)
    }

    /// Whether the egress guard is on each of the pod's interfaces, line by line; nothing if the pod has none.
    pub(crate) fn inspect_egress(&self) -> Vec<Line> {
        self.egress.as_ref().map(Egress::inspect).unwrap_or_default()
    }

    /// How often the egress guard dropped what, since this agent captured the pod; nothing if the pod has none.
    pub fn guarded(&self) -> impl Iterator<Item = (Guarded, u64)> {
        self.egress.iter().flat_map(Egress::counts)
    }

    /// What the egress guard dropped since this was called last.
    pub fn newly_guarded(&self) -> Option<Dropped> {
        self.egress.as_ref()?.news()
    }

    /// Switches the settings of the namespace on.
    pub(crate) fn set_sysctls(&self) -> Result<(), CaptureError> {
        self.netns.run(|| set_sysctls(&mut lock(&self.sysctls)))?
    }

    /// The settings of the namespace that this attachment has switched on.
    pub fn changed_sysctls(&self) -> Vec<String> {
        lock(&self.sysctls).iter().map(|name| (*name).to_owned()).collect()
    }

    /// Puts the namespace back as it was, `sysctls` being what capture has switched on there; to be called when the last
    /// captured connection has ended.
    pub fn put_back(&self, sysctls: &[String]) -> Result<(), CaptureError> {
        put_back(&self.netns, sysctls)
    }

    /// How often each decision was taken on connections delivered in the pod, since this agent captured it.
    pub fn steered(&self) -> impl Iterator<Item = (Steering, u64)> {
        let steered = self.steered.lock().unwrap_or_else(PoisonError::into_inner);
        let count = |what: Steering| {
            let counts = steered.as_ref()?.get(&(what as u32), 0).ok()?;
            Some(counts.iter().sum())
        };
        Steering::ALL.map(|what| (what, count(what).unwrap_or(0))).into_iter()
    }

    /// Adds the policy route, or what is missing of it.
    pub(crate) fn add_route(&self) -> Result<(), CaptureError> {
        netlink::add_mark_route(&self.netns, ROUTE, self.sources())?;
        lock(&self.entrances).open(&self.netns)
    }

    /// Whether the interfaces whose traffic counts as the application's are led to the agent, line by line.
    pub(crate) fn inspect_entrances(&self, state: &State) -> Vec<Line> {
        lock(&self.entrances).inspect(&self.netns, state)
    }

    /// The prefix at which the agent takes DNS queries over IPv6, if it takes any.
    pub(crate) fn dns_prefix(&self) -> Option<(Ipv6Addr, u8)> {
        self.options.dns.then(dns_prefix)
    }

    /// Makes that prefix the pod's own.
    pub(crate) fn add_dns_prefix(&self) -> Result<(), CaptureError> {
        match self.dns_prefix() {
            Some(prefix) => Ok(netlink::add_local_prefix(&self.netns, prefix)?),
            None => Ok(()),
        }
    }

    fn sources(&self) -> Sources {
        let v4 = match first_routable(&self.addresses, false) {
            Some(IpAddr::V4(v4)) => Some(v4),
            _ => None,
        };
        let v6 = match first_routable(&self.addresses, true) {
            Some(IpAddr::V6(v6)) => Some(v6),
            _ => None,
        };
        Sources { v4, v6 }
    }
}

/// Two installations in one pod would go on outdoing each other.
fn refuse_other_installation(node: &NodeCapture, cookie: u64, netns: &Netns) -> Result<(), CaptureError> {
    let error = CaptureError::socket("list the programs on the pod's namespace");
    let mut own = BTreeSet::new();
    let others = OtherLayouts::of(node.pins()).pods(cookie)?;
    for directory in std::iter::once(node.pins().pod(cookie)).chain(others) {
        // What is not there, or is not a link, is not ours.
        let link = bpf::open_pin(&directory.join(program::STEER)).and_then(|link| bpf::link_info(&link));
        own.extend(link.ok().map(|info| info.program));
    }
    match others::installation(netns, &own).map_err(error)? {
        Some(id) => Err(CaptureError::Installation(id)),
        None => Ok(()),
    }
}

/// Removes what another agent left of a pod: its row, its pins and, where the namespace is still there, its route.
pub fn forget(
    node: &NodeCapture,
    cookie: u64,
    netns: Option<&Netns>,
    sysctls: &[String],
) -> Result<(), CaptureError> {
    netns.map_or(Ok(()), |netns| unguard(node.pins(), cookie, netns))?;
    node.forget(cookie)?;
    OtherLayouts::of(node.pins()).let_go(cookie)?;
    netns.map_or(Ok(()), |netns| put_back(netns, sysctls))
}

/// Takes the egress guard off a pod, whichever agent's it was; to be called before its pins are removed.
pub fn unguard(pins: &Pins, cookie: u64, netns: &Netns) -> Result<(), CaptureError> {
    egress::remove(netns, &pins.pod(cookie))
}

/// Removes a pod's routes, and switches off what capture has switched on.
pub fn put_back(netns: &Netns, sysctls: &[String]) -> Result<(), CaptureError> {
    netlink::set_entrances(netns, ROUTE, &[])?;
    netlink::remove_mark_route(netns, ROUTE)?;
    netlink::remove_local_prefix(netns, dns_prefix())?;
    netns.run(|| {
        let ours = SYSCTLS.iter().filter(|name| sysctls.iter().any(|changed| changed == *name));
        ours.copied().try_for_each(|name| sysctl::set(name, "0").map(drop))
    })??;
    Ok(())
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The IPv6 addresses at which the agent takes DNS queries inside a pod.
fn dns_prefix() -> (Ipv6Addr, u8) {
    let [a, b, c, d, e, f, g, h] = abi::DNS_PREFIX_V6;
    (Ipv6Addr::new(a, b, c, d, e, f, g, h), abi::DNS_PREFIX_V6_LENGTH)
}

impl std::fmt::Debug for Attachment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Attachment")
            .field("cookie", &self.cookie)
            .field("addresses", &self.addresses)
            .finish_non_exhaustive()
    }
}

/// The address that captured connections of a family get as their source.
pub(crate) fn first_routable(addresses: &[IpAddr], v6: bool) -> Option<IpAddr> {
    addresses.iter().copied().find(|address| address.is_ipv6() == v6 && is_routable(address))
}

/// Neither loopback nor link-local.
fn is_routable(address: &IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => !v4.is_loopback() && !v4.is_link_local(),
        IpAddr::V6(v6) => !v6.is_loopback() && !v6.is_unicast_link_local(),
    }
}

/// Settings of the pod's namespace that capture switches on.
const SYSCTLS: [&str; 3] = [
    // What the application accepts from the agent inherits the mark, so that its replies come back.
    "net.ipv4.tcp_fwmark_accept",
    // So does the reset of a closed port; without it the agent would wait for its time-out.
    "net.ipv4.fwmark_reflect",
    "net.ipv6.fwmark_reflect",
];

/// Switches them on, and notes those that were off; called inside the namespace.
fn set_sysctls(changed: &mut Vec<&'static str>) -> Result<(), CaptureError> {
    let has_v6 = Path::new("/proc/sys/net/ipv6").exists();
    for name in SYSCTLS.into_iter().filter(|name| has_v6 || !name.starts_with("net.ipv6")) {
        if sysctl::set(name, "1")? && !changed.contains(&name) {
            changed.push(name);
        }
    }
    Ok(())
}
