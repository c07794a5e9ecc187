//! Capture of a node: the connect programs on the root of the cgroup v2 hierarchy, and the map of enrolled pods.
//!
//! The maps are pinned and shared with the agents before and after this one. The programs are the binary's own: a starting
//! agent attaches its programs beside the old ones (both mark, which is idempotent) and then lets the old ones go.

use std::fs::File;
use std::net::TcpListener;
use std::os::fd::AsRawFd as _;
use std::path::Path;
use std::sync::{Mutex, PoisonError};

use abi::{map, program};
use aya::maps::{HashMap, Map, MapData, MapError, SockHash};
use aya::programs::links::FdLink;
use aya::programs::{CgroupAttachMode, CgroupSockAddr};
use aya::{Ebpf, EbpfLoader};
use linux::{bpffs, cgroup, privilege};

use crate::error::CaptureError;
use crate::pins::{Pins, pin_link};
use crate::probe;

/// Cookies of enrolled namespaces; the value has no meaning.
type Enrolled = HashMap<MapData, u64, u32>;
/// The agent's outbound listener of each enrolled namespace.
type Agents = SockHash<MapData, u64>;

/// The node's half of capture.
pub struct NodeCapture {
    pins: Pins,
    enrolled: Mutex<Enrolled>,
    agents: Mutex<Agents>,
    // A new one would read all of the kernel's type information, which takes longer than everything else a pod needs.
    loader: Mutex<EbpfLoader<'static>>,
}

impl NodeCapture {
    /// Loads and attaches the node's programs; their pins are below `bpffs`.
    ///
    /// Checks privileges, the kernel and cgroup v2 first, and says what is missing before anything is touched.
    pub fn open(bpffs_root: &Path) -> Result<Self, CaptureError> {
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

        let mut loader = EbpfLoader::new();
        // No program of ours looks into the kernel's structures.
        loader.btf(None);
        let mut object = loader
            .map_pin_path(map::ENROLLED, pins.node().join(map::ENROLLED))
            .map_pin_path(map::EXEMPT, pins.node().join(map::EXEMPT))
            .map_pin_path(map::AGENTS, pins.node().join(map::AGENTS))
            .load(crate::object::NODE)?;
        for name in [program::CONNECT4, program::CONNECT6] {
            let link = attach(&mut object, name, &root)?;
            pin_link(link, &pins.node(), name)?;
        }
        let enrolled = object.take_map(map::ENROLLED).ok_or(CaptureError::Missing(map::ENROLLED))?;
        let enrolled = Enrolled::try_from(enrolled).map_err(CaptureError::map(map::ENROLLED))?;
        let agents = object.take_map(map::AGENTS).ok_or(CaptureError::Missing(map::AGENTS))?;
        let agents = Agents::try_from(agents).map_err(CaptureError::map(map::AGENTS))?;
        Ok(Self {
            pins,
            enrolled: Mutex::new(enrolled),
            agents: Mutex::new(agents),
            loader: Mutex::new(loader),
        })
    }

    /// Loads the programs and maps of one pod.
    pub(crate) fn load_pod(&self) -> Result<Ebpf, CaptureError> {
        Ok(self.loader.lock().unwrap_or_else(PoisonError::into_inner).load(crate::object::POD)?)
    }

    /// Where this installation's pins are.
    pub fn pins(&self) -> &Pins {
        &self.pins
    }

    /// Whether connections of the namespace with this cookie are being marked.
    pub fn is_enrolled(&self, cookie: u64) -> bool {
        self.with_enrolled(|enrolled| enrolled.get(&cookie, 0).is_ok())
    }

    /// The cookies of all namespaces whose connections are being marked.
    pub fn enrolled(&self) -> Vec<u64> {
        self.with_enrolled(|enrolled| enrolled.keys().flatten().collect())
    }

    /// Starts marking the connections of a namespace, in which `listener` accepts them.
    pub(crate) fn enrol(&self, cookie: u64, listener: &TcpListener) -> Result<(), CaptureError> {
        self.agents
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(cookie, listener.as_raw_fd(), 0)
            .map_err(CaptureError::map(map::AGENTS))?;
        self.with_enrolled(|enrolled| enrolled.insert(cookie, 0, 0)).map_err(CaptureError::map(map::ENROLLED))
    }

    pub(crate) fn release(&self, cookie: u64) -> Result<(), CaptureError> {
        match self.with_enrolled(|enrolled| enrolled.remove(&cookie)) {
            Ok(()) | Err(MapError::KeyNotFound) => Ok(()),
            Err(error) if is_absent(&error) => Ok(()),
            Err(error) => Err(CaptureError::map(map::ENROLLED)(error)),
        }
    }

    /// Removes what is left of a pod whose namespace is gone: its pins and its row.
    pub fn forget(&self, cookie: u64) -> Result<(), CaptureError> {
        self.release(cookie)?;
        bpffs::remove(&self.pins.pod(cookie))?;
        Ok(())
    }

    /// A handle of the map that exempts the agent's own sockets.
    pub(crate) fn exempt(&self) -> Result<Map, CaptureError> {
        let data =
            MapData::from_pin(self.pins.node().join(map::EXEMPT)).map_err(CaptureError::map(map::EXEMPT))?;
        Map::from_map_data(data).map_err(CaptureError::map(map::EXEMPT))
    }

    fn with_enrolled<T>(&self, work: impl FnOnce(&mut Enrolled) -> T) -> T {
        // A panic while the lock was held cannot have left the kernel's map half-written.
        let mut enrolled = self.enrolled.lock().unwrap_or_else(PoisonError::into_inner);
        work(&mut enrolled)
    }
}

/// The kernel's answer to the removal of a row that is not there.
fn is_absent(error: &MapError) -> bool {
    matches!(error, MapError::SyscallError(call) if call.io_error.kind() == std::io::ErrorKind::NotFound)
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
