//! Capture of a node: the programs on the root of the cgroup v2 hierarchy, and the maps that they share with the agent.
//!
//! The maps are pinned and shared with the agents before and after this one. The programs are the binary's own: a starting
//! agent attaches its programs beside the old ones (what they do, they may do twice) and then lets the old ones go.

mod enlisting;
mod maps;
mod probes;

use std::collections::BTreeSet;
use std::fs::File;
use std::net::{IpAddr, TcpListener};
use std::os::fd::AsRawFd as _;
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};

use abi::{Decision, Row, map, program};
use aya::maps::{Map, MapData};
use aya::programs::links::FdLink;
use aya::programs::{CgroupAttachMode, CgroupSockAddr};
use aya::{Ebpf, EbpfLoader};
use linux::{bpf, bpffs, cgroup, privilege};

use crate::error::CaptureError;
use crate::events::Events;
use crate::pins::{Pins, pin_link};
use crate::probe;
use crate::report::Line;
pub(crate) use enlisting::Enlisted;
pub(crate) use maps::Shared;
use maps::{NodeMaps, PINNED, absent_is_fine};
use probes::Probes;
pub(crate) use probes::is_pin as is_probes_pin;

/// The programs for calls on sockets.
const SOCK_ADDR: [&str; 8] = [
    program::CONNECT4,
    program::CONNECT6,
    program::SENDMSG4,
    program::SENDMSG6,
    program::RECVMSG4,
    program::RECVMSG6,
    program::GETPEERNAME4,
    program::GETPEERNAME6,
];

/// Where the kernel shows its type information.
const TYPES: &str = "/sys/kernel/btf";

/// What loading programs needs.
///
/// To make it aya reads all of the kernel's type information, which no program of ours needs: that would take longer than
/// everything else at a start, and tens of megabytes, so it is hidden. Where that is forbidden it takes its time, and can be begun on another
/// thread before it is known what to load.
#[derive(Debug)]
pub struct Preparation(EbpfLoader<'static>);

impl Preparation {
    /// Makes it; touches nothing.
    pub fn new() -> Self {
        let mut loader = linux::hidden::without(Path::new(TYPES), EbpfLoader::new);
        // No program of ours looks into the kernel's structures.
        loader.btf(None);
        Self(loader)
    }
}

impl Default for Preparation {
    fn default() -> Self {
        Self::new()
    }
}

/// The node's half of capture.
pub struct NodeCapture {
    pins: Pins,
    maps: NodeMaps,
    // Kept, for a new one would have to be prepared.
    loader: Mutex<EbpfLoader<'static>>,
    events: Mutex<Option<Events>>,
    probes: Mutex<Probes>,
    enlisted: Enlisted,
    // Held while this process makes itself known.
    enlisting: Mutex<()>,
}

impl NodeCapture {
    /// Loads and attaches the node's programs; their pins are below `bpffs`.
    ///
    /// Checks privileges, the kernel and cgroup v2 first, and says what is missing before anything is touched.
    pub fn open(bpffs_root: &Path) -> Result<Self, CaptureError> {
        Self::open_with(bpffs_root, Preparation::new())
    }

    /// The same, with what was prepared.
    pub fn open_with(bpffs_root: &Path, prepared: Preparation) -> Result<Self, CaptureError> {
        let missing = privilege::missing().map_err(CaptureError::socket("read /proc/self/status"))?;
        if !missing.is_empty() {
            return Err(CaptureError::Privilege(missing));
        }
        probe::kernel()?;
        let root = cgroup::root()?;
        let root = File::open(&root).map_err(CaptureError::socket("open the root cgroup"))?;
        let pins = Pins::new(bpffs_root);
        bpffs::ensure(&pins.node())?;
        bpffs::ensure(&pins.pods())?;

        let Preparation(mut loader) = prepared;
        for name in PINNED {
            loader.map_pin_path(name, pins.node().join(name));
        }
        let mut object = loader.load(crate::object::NODE)?;
        for name in SOCK_ADDR {
            pin_link(attach(&mut object, name, &root)?, &pins.node(), name)?;
        }
        let maps = NodeMaps::take(&mut object)?;
        let events = object.take_map(map::EVENTS).ok_or(CaptureError::Missing(map::EVENTS))?;
        let events = Mutex::new(Some(Events::new(events)?));
        let probes = Mutex::new(Probes::load(object, pins.node())?);
        Ok(Self {
            pins,
            maps,
            loader: Mutex::new(loader),
            events,
            probes,
            enlisted: Enlisted::default(),
            enlisting: Mutex::new(()),
        })
    }

    /// Loads the programs and maps of one pod.
    pub(crate) fn load_pod(&self) -> Result<Ebpf, CaptureError> {
        Ok(self.loader.lock().unwrap_or_else(PoisonError::into_inner).load(crate::object::POD)?)
    }

    /// Loads the maps of the egress guard of one pod.
    pub(crate) fn load_guard(&self) -> Result<Ebpf, CaptureError> {
        Ok(self.loader.lock().unwrap_or_else(PoisonError::into_inner).load(crate::object::GUARD)?)
    }

    /// Decisions as they are taken, from now on; only the first who asks gets them.
    pub fn take_events(&self) -> Option<Events> {
        self.events.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    /// Where this installation's pins are.
    pub fn pins(&self) -> &Pins {
        &self.pins
    }

    /// Whether connections of the namespace with this cookie are being marked.
    pub fn is_enrolled(&self, cookie: u64) -> bool {
        self.maps.enrolled().get(&cookie, 0).is_ok()
    }

    /// What the programs know of the namespace with this cookie.
    pub(crate) fn row(&self, cookie: u64) -> Option<Row> {
        self.maps.enrolled().get(&cookie, 0).ok().map(|row| row.0)
    }

    /// The cookies of all namespaces whose connections are being marked.
    pub fn enrolled(&self) -> Vec<u64> {
        self.maps.enrolled().keys().flatten().collect()
    }

    /// Starts marking the connections of a namespace, in which `listener` accepts them.
    pub(crate) fn enrol(&self, cookie: u64, listener: &TcpListener, row: Row) -> Result<(), CaptureError> {
        self.maps.agents().insert(cookie, listener.as_raw_fd(), 0).map_err(CaptureError::map(map::AGENTS))?;
        self.maps.enrolled().insert(cookie, Shared(row), 0).map_err(CaptureError::map(map::ENROLLED))
    }

    /// Says which addresses a pod has: connections to them are left alone.
    pub(crate) fn set_addresses(&self, cookie: u64, addresses: &[IpAddr]) -> Result<(), CaptureError> {
        self.maps.set_addresses(cookie, addresses)
    }

    pub(crate) fn release(&self, cookie: u64) -> Result<(), CaptureError> {
        let removed = self.maps.enrolled().remove(&cookie);
        absent_is_fine(removed).map_err(CaptureError::map(map::ENROLLED))?;
        self.maps.forget(cookie)
    }

    /// Removes what is left of a pod whose namespace is gone: its pins and its row.
    pub fn forget(&self, cookie: u64) -> Result<(), CaptureError> {
        self.release(cookie)?;
        let directory = self.pins.pod(cookie);
        // Without its pin the kernel lets go of a link some milliseconds later only, in which somebody may look.
        if let Ok(link) = bpf::open_pin(&directory.join(program::STEER)) {
            // A link of a namespace that is gone is detached already.
            let _ = bpf::detach(&link);
        }
        bpffs::remove(&directory)?;
        Ok(())
    }

    /// Says which processes of the node are kubelets: their connections to pods are left alone. Replaces what was said before.
    ///
    /// `cgroups` are those that they are in. The program that notes their connections is attached there and nowhere else, for it
    /// runs several times for each connection of whoever is in such a cgroup.
    pub fn set_probers(
        &self,
        processes: &BTreeSet<u32>,
        cgroups: &BTreeSet<PathBuf>,
    ) -> Result<(), CaptureError> {
        self.probes().follow(cgroups)?;
        let error = CaptureError::map(map::PROBERS);
        let mut probers = self.maps.probers();
        let known: BTreeSet<u32> = probers.keys().flatten().collect();
        let mut change = || {
            for gone in known.difference(processes) {
                absent_is_fine(probers.remove(gone))?;
            }
            processes.difference(&known).try_for_each(|new| probers.insert(new, 0, 0))
        };
        change().map_err(error)
    }

    /// Whether the program that notes the kubelet's connections is where it must be, line by line.
    pub(crate) fn inspect_probes(&self) -> Vec<Line> {
        self.probes().inspect()
    }

    /// Attaches that program again where it was lost.
    pub(crate) fn repair_probes(&self) -> Result<(), CaptureError> {
        self.probes().repair()
    }

    fn probes(&self) -> MutexGuard<'_, Probes> {
        self.probes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// How often each decision was taken for the pod with this cookie.
    pub fn decisions(&self, cookie: u64) -> impl Iterator<Item = (Decision, u64)> {
        Decision::ALL.into_iter().map(move |decision| (decision, self.maps.decisions(cookie, decision)))
    }

    /// The resolver that a pod meant with a query that came to `address` of the agent's DNS socket.
    pub fn resolver(&self, cookie: u64, address: IpAddr) -> Option<IpAddr> {
        let slot = abi::dns_slot(address.into())?;
        self.maps.resolver(cookie, slot).map(IpAddr::from)
    }

    /// A handle of the map that exempts the agent's own sockets.
    pub(crate) fn exempt(&self) -> Result<Map, CaptureError> {
        let data =
            MapData::from_pin(self.pins.node().join(map::EXEMPT)).map_err(CaptureError::map(map::EXEMPT))?;
        Map::from_map_data(data).map_err(CaptureError::map(map::EXEMPT))
    }
}

fn attach(object: &mut Ebpf, name: &'static str, root: &File) -> Result<FdLink, CaptureError> {
    let program = object.program_mut(name).ok_or(CaptureError::Missing(name))?;
    let program: &mut CgroupSockAddr = program.try_into().map_err(CaptureError::program(name))?;
    program.load().map_err(CaptureError::program(name))?;
    // With a link the kernel always lets others be attached beside it; the flag for that is refused.
    let id = program.attach(root, CgroupAttachMode::Single).map_err(CaptureError::program(name))?;
    let link = program.take_link(id).map_err(CaptureError::program(name))?;
    FdLink::try_from(link).map_err(|source| CaptureError::Link { name, source })
}
