//! The egress guard of one pod: a classifier on every interface of its namespace but lo, which drops TCP that goes past
//! capture (`programs/src/guard`).
//!
//! From Linux 6.6 it is a link, pinned beside that of `steer`; below, a filter of a clsact qdisc, of which a pin says that it
//! is there and whether the qdisc was made for it. Ours are known by their map, whoever's they were: so an agent puts its own
//! in the place of its predecessor's without a moment in between, and what is removed is ours and nothing else. An interface
//! that cannot be guarded is an error, never left out.

mod place;

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use abi::{Guarded, Seen, map, program};
use aya::Ebpf;
use aya::maps::{Array, Map, MapData, MapError, PerCpuArray};
use aya::programs::{CgroupSockopt, SchedClassifier};
use linux::netlink::interfaces::{Frame, Interface, interfaces};
use linux::netns::Netns;
use linux::{bpf, cgroup};

use crate::error::CaptureError;
use crate::node::{NodeCapture, Shared};
use crate::pins::pin;
use crate::report::{Line, Part, Problem};
use place::Place;
pub(crate) use place::remove;

/// The guard of one pod.
pub(crate) struct Egress {
    netns: Netns,
    directory: PathBuf,
    programs: Mutex<Programs>,
    guarded: PerCpuArray<MapData, u64>,
    seen: Array<MapData, Shared<Seen>>,
    told: AtomicU64,
}

/// Those that are needed, loaded when they are.
struct Programs {
    object: Ebpf,
    ethernet: Option<Program>,
    ip: Option<Program>,
}

/// A loaded program.
pub(super) struct Program {
    pub(super) name: &'static str,
    pub(super) fd: OwnedFd,
    pub(super) id: u32,
}

/// What was dropped since that was asked last.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Dropped {
    /// How many packets.
    pub count: u64,
    /// Where the last one was to go.
    pub last: std::net::SocketAddr,
}

impl Egress {
    /// Of a pod whose pins are in `directory`; nothing is attached yet.
    pub(crate) fn load(node: &NodeCapture, netns: Netns, directory: PathBuf) -> Result<Self, CaptureError> {
        let mut object = node.load_guard()?;
        let guarded = take(&mut object, map::GUARDED)?;
        let seen = take(&mut object, map::SEEN)?;
        let programs = Mutex::new(Programs { object, ethernet: None, ip: None });
        Ok(Self { netns, directory, programs, guarded, seen, told: AtomicU64::new(0) })
    }

    /// Puts it wherever it is missing.
    pub(crate) fn ensure(&self) -> Result<(), CaptureError> {
        let interfaces = interfaces(&self.netns)?;
        let mut place = Place::open(&self.netns, &self.directory)?;
        for interface in &interfaces {
            let known = self.programs().known(interface.frame);
            if known.is_some_and(|id| place.is_behind(interface, id)) {
                self.programs().renew(interface.frame)?;
            }
        }
        for interface in &interfaces {
            let done = self.programs().of(interface).and_then(|program| place.put(interface, program));
            match done {
                // It went meanwhile.
                Err(CaptureError::Guard { source, .. }) if is_gone(&source) => {}
                other => other?,
            }
        }
        place.tidy(&interfaces)
    }

    /// Whether it is on every interface, line by line.
    pub(crate) fn inspect(&self) -> Vec<Line> {
        const NAME: &str = "egress guard";
        let looked = interfaces(&self.netns)
            .map_err(CaptureError::from)
            .and_then(|interfaces| Ok((interfaces, Place::open(&self.netns, &self.directory)?)));
        let (interfaces, mut place) = match looked {
            Ok(looked) => looked,
            Err(error) => {
                let what = format!("cannot be looked at: {error}");
                return vec![Line::new(Part::Egress, NAME, Err(Problem::new(what, "see the agent's log")))];
            }
        };
        let look = |interface: &Interface| {
            let found = match self.programs().known(interface.frame) {
                Some(id) => place.look(interface, id),
                None => Err(Problem::new("it is not there: the interface is new", place::AGAIN)),
            };
            Line::new(Part::Egress, format!("{NAME} on {}", interface.name), found)
        };
        interfaces.iter().map(look).collect()
    }

    /// How often it dropped what, since this agent captured the pod.
    pub(crate) fn counts(&self) -> impl Iterator<Item = (Guarded, u64)> {
        let count = |why: Guarded| self.guarded.get(&(why as u32), 0).map_or(0, |counts| counts.iter().sum());
        Guarded::ALL.map(|why| (why, count(why))).into_iter()
    }

    /// What it dropped since this was called last.
    pub(crate) fn news(&self) -> Option<Dropped> {
        let count: u64 = self.counts().map(|(_, count)| count).sum();
        let before = self.told.swap(count, Ordering::Relaxed);
        let count = count.checked_sub(before).filter(|count| *count > 0)?;
        let (address, port) = self.seen.get(&0, 0).ok()?.0.destination();
        Some(Dropped { count, last: (std::net::IpAddr::from(address), port).into() })
    }

    fn programs(&self) -> std::sync::MutexGuard<'_, Programs> {
        self.programs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Egress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Egress").field("directory", &self.directory).finish_non_exhaustive()
    }
}

impl Programs {
    /// The one for an interface.
    fn of(&mut self, interface: &Interface) -> Result<&Program, CaptureError> {
        let Self { object, ethernet, ip } = self;
        let (slot, name) = match interface.frame {
            Frame::Ethernet => (ethernet, program::GUARD_ETHERNET),
            Frame::Ip => (ip, program::GUARD_IP),
            Frame::Other(number) => {
                let what =
                    format!("its packets begin with a header of hardware type {number}, which is not known");
                return Err(guard(&interface.name, io::Error::other(what)));
            }
        };
        match slot {
            Some(loaded) => Ok(loaded),
            None => Ok(slot.insert(load(object, name)?)),
        }
    }

    /// Loads another instance of the one for interfaces of a kind, with the same maps.
    fn renew(&mut self, frame: Frame) -> Result<(), CaptureError> {
        let Self { object, ethernet, ip } = self;
        let (slot, name) = match frame {
            Frame::Ethernet => (ethernet, program::GUARD_ETHERNET),
            Frame::Ip => (ip, program::GUARD_IP),
            Frame::Other(_) => return Ok(()),
        };
        let program = object.program_mut(name).ok_or(CaptureError::Missing(name))?;
        let program: &mut SchedClassifier = program.try_into().map_err(CaptureError::program(name))?;
        program.unload().map_err(CaptureError::program(name))?;
        *slot = Some(load(object, name)?);
        Ok(())
    }

    /// The number of the one for interfaces of a kind, if it is loaded.
    fn known(&self, frame: Frame) -> Option<u32> {
        let slot = match frame {
            Frame::Ethernet => &self.ethernet,
            Frame::Ip => &self.ip,
            Frame::Other(_) => &None,
        };
        slot.as_ref().map(|program| program.id)
    }
}

/// Makes the node ready for pods that are guarded, or for none: called when it was opened, before a pod is touched.
///
/// Whether this kernel can guard a pod is tried on a namespace that is made for it, so that what is missing is told at once.
pub fn prepare(node: &NodeCapture, guard: bool) -> Result<(), CaptureError> {
    let pin = node.pins().node().join(program::FENCE);
    if guard {
        check(node)?;
        return fence(node);
    }
    if let Ok(link) = bpf::open_pin(&pin) {
        // Without its pin the kernel lets go of a link some milliseconds later only; one that is detached already is fine.
        let _ = bpf::detach(&link);
    }
    Ok(linux::bpffs::remove_file(&pin)?)
}

/// Refuses, in guarded pods, what would take frames past the classifiers; in the place of an earlier agent's fence.
fn fence(node: &NodeCapture) -> Result<(), CaptureError> {
    let name = program::FENCE;
    let mut object = node.load_guard()?;
    let program = object.program_mut(name).ok_or(CaptureError::Missing(name))?;
    let program: &mut CgroupSockopt = program.try_into().map_err(CaptureError::program(name))?;
    program.load().map_err(CaptureError::program(name))?;
    let root = File::open(cgroup::root()?).map_err(CaptureError::socket("open the root cgroup"))?;
    let link = bpf::attach_setsockopt(program.fd().map_err(CaptureError::program(name))?, &root)
        .map_err(CaptureError::socket("attach the fence of the egress guard"))?;
    pin(&link, &node.pins().node(), name)
}

fn check(node: &NodeCapture) -> Result<(), CaptureError> {
    const LOOPBACK: Interface = Interface { index: 1, name: String::new(), frame: Frame::Ethernet };
    let netns = Netns::create()?;
    let directory = node.pins().pods().join("check");
    linux::bpffs::ensure(&directory)?;
    let egress = Egress::load(node, netns.try_clone()?, directory.clone())?;
    let tried = egress.programs().of(&LOOPBACK).and_then(|program| {
        Place::open(&netns, &directory)?.put(&Interface { name: "lo".to_owned(), ..LOOPBACK }, program)
    });
    linux::bpffs::remove(&directory)?;
    tried
}

fn load(object: &mut Ebpf, name: &'static str) -> Result<Program, CaptureError> {
    let program = object.program_mut(name).ok_or(CaptureError::Missing(name))?;
    let program: &mut SchedClassifier = program.try_into().map_err(CaptureError::program(name))?;
    program.load().map_err(CaptureError::program(name))?;
    let id = program.info().map_err(CaptureError::program(name))?.id();
    let fd = bpf::program(id).map_err(CaptureError::socket("keep the program of the egress guard"))?;
    Ok(Program { name, fd, id })
}

fn take<M: TryFrom<Map, Error = MapError>>(object: &mut Ebpf, name: &'static str) -> Result<M, CaptureError> {
    let map = object.take_map(name).ok_or(CaptureError::Missing(name))?;
    M::try_from(map).map_err(CaptureError::map(name))
}

/// Whether a program is one of ours, of whichever agent: by its map, for names prove nothing.
fn is_ours(id: u32) -> io::Result<bool> {
    let absent = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
    let program = match bpf::program(id) {
        Err(error) if absent(&error) => return Ok(false),
        other => other?,
    };
    for id in bpf::maps_of(&program)? {
        match bpf::map(id).and_then(|map| bpf::map_info(&map)) {
            Ok(info) if info.name == map::GUARDED => return Ok(true),
            Err(error) if !absent(&error) => return Err(error),
            _ => {}
        }
    }
    Ok(false)
}

fn guard(interface: &str, source: io::Error) -> CaptureError {
    CaptureError::Guard { interface: interface.to_owned(), source }
}

fn is_gone(error: &io::Error) -> bool {
    const ENODEV: i32 = 19;
    error.raw_os_error() == Some(ENODEV)
}

/// The pins of a guard in a pod's directory.
fn pins(directory: &Path, prefix: &str) -> Result<Vec<String>, CaptureError> {
    let names = linux::bpffs::entries(directory)?;
    Ok(names.into_iter().filter(|name| name.starts_with(prefix)).collect())
}
