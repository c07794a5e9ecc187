//! Where the guard is on an interface: a link from Linux 6.6, a filter of a clsact qdisc below.

use std::io;
use std::path::Path;

use linux::netlink::NetlinkError;
use linux::netlink::interfaces::{Interface, interfaces};
use linux::netlink::tc::{self, Filters};
use linux::netns::Netns;
use linux::{bpf, bpffs};

use super::{Program, guard, is_ours, pins};
use crate::error::CaptureError;
use crate::pins::pin;
use crate::report::Problem;

/// Pins of links: `guard_INDEX`.
const LINK: &str = "guard_";
/// Pins of filters' programs: `clsact_INDEX`, or `clsact_made_INDEX` where the qdisc was made for them.
const FILTER: &str = "clsact_";
const MADE: &str = "clsact_made_";

/// The filter's place: before all others.
const FIRST: tc::Place = tc::Place { preference: 1, handle: 0xc17 };

pub(super) const AGAIN: &str = "the agent puts it there; if it is lost again, look for who removes files below /sys/fs/bpf, or \
                                classifiers in the pod (bpftool net, tc filter show dev eth0 egress)";

/// The means by which programs are put on the interfaces of one namespace.
pub(crate) struct Place<'a> {
    netns: &'a Netns,
    directory: &'a Path,
    /// None where the kernel has links.
    filters: Option<Filters>,
}

impl<'a> Place<'a> {
    /// Of a pod whose pins are in `directory`.
    pub(super) fn open(netns: &'a Netns, directory: &'a Path) -> Result<Self, CaptureError> {
        let filters = if bpf::has_egress_links() { None } else { Some(Filters::open(netns)?) };
        Ok(Self { netns, directory, filters })
    }

    /// Puts a program on an interface, before all others, unless it is there.
    pub(super) fn put(&mut self, interface: &Interface, program: &Program) -> Result<(), CaptureError> {
        bpffs::ensure(self.directory)?;
        if self.look(interface, program.id).is_ok() {
            return Ok(());
        }
        let Some(filters) = &mut self.filters else {
            let index = interface.index;
            let link = self.netns.run(|| bpf::attach_egress(&program.fd, index))?;
            let link = link.map_err(|source| guard(&interface.name, source))?;
            return pin(&link, self.directory, &format!("{LINK}{index}"));
        };
        let error = |error: NetlinkError| guard(&interface.name, io_error(error));
        let plain = format!("{FILTER}{}", interface.index);
        let made = format!("{MADE}{}", interface.index);
        // Noted before there is anything to be noted: whoever comes after a crash then finds no qdisc at the worst.
        let is_made = self.directory.join(&made).exists();
        let is_new = filters.add_qdisc(interface.index).map_err(error)?;
        pin(&program.fd, self.directory, if is_made || is_new { &made } else { &plain })?;
        filters.set(interface.index, FIRST, program.name, &program.fd).map_err(error)
    }

    /// Whether the program of this number is on an interface, before all others.
    pub(super) fn look(&mut self, interface: &Interface, program: u32) -> Result<(), Problem> {
        let found = self.programs(interface)?;
        match found.first() {
            Some(first) if *first == program => Ok(()),
            _ if !found.contains(&program) => {
                Err(Problem::new("it is not there: TCP that is written by hand leaves the pod", AGAIN))
            }
            first => {
                let first = first.copied().unwrap_or_default();
                let what = format!(
                    "another classifier (program id {first}) runs before it, and may let pass what it likes"
                );
                let remedy = "the agent puts its own first; if that goes on, look for who attaches the other";
                Err(Problem::new(what, remedy))
            }
        }
    }

    /// Whether it is there as a link, behind somebody else's. The kernel takes a program once for an interface, so another
    /// instance of it must go before.
    pub(super) fn is_behind(&mut self, interface: &Interface, program: u32) -> bool {
        self.filters.is_none()
            && self.programs(interface).is_ok_and(|found| {
                found.first().is_some_and(|first| *first != program) && found.contains(&program)
            })
    }

    /// The programs on the way out of an interface, in the order in which they run.
    fn programs(&mut self, interface: &Interface) -> Result<Vec<u32>, Problem> {
        let unseen = |error: &dyn std::fmt::Display| {
            Problem::new(format!("cannot be looked at: {error}"), "see the agent's log")
        };
        let Some(filters) = &mut self.filters else {
            let index = interface.index;
            let attached = self.netns.run(|| bpf::attached_egress(index)).map_err(|e| unseen(&e))?;
            return attached.map_err(|e| unseen(&e));
        };
        let filters = filters.on_egress(interface.index).map_err(|e| unseen(&e))?;
        // One without a program is somebody's as well; no program has this number.
        Ok(filters.iter().map(|filter| filter.program.unwrap_or(0)).collect())
    }

    /// Removes pins of interfaces that are gone.
    pub(super) fn tidy(&self, interfaces: &[Interface]) -> Result<(), CaptureError> {
        for name in pins(self.directory, LINK)?.into_iter().chain(pins(self.directory, FILTER)?) {
            if !interfaces.iter().any(|interface| Some(interface.index) == index_of(&name)) {
                bpffs::remove_file(&self.directory.join(name))?;
            }
        }
        Ok(())
    }
}

/// Takes every guard off a pod's interfaces, whichever agent's it was; `directory` has the pod's pins.
pub(crate) fn remove(netns: &Netns, directory: &Path) -> Result<(), CaptureError> {
    for name in pins(directory, LINK)? {
        let path = directory.join(name);
        // Without its pin the kernel lets go of a link some milliseconds later only; one that is detached already is fine.
        let _ = bpf::open_pin(&path).and_then(|link| bpf::detach(&link));
        bpffs::remove_file(&path)?;
    }
    if bpf::has_egress_links() {
        return Ok(());
    }
    let mut filters = Filters::open(netns)?;
    for interface in interfaces(netns)? {
        for filter in filters.on_egress(interface.index)? {
            let Some(program) = filter.program else { continue };
            if is_ours(program).map_err(|source| guard(&interface.name, source))? {
                filters.remove(interface.index, filter.place)?;
            }
        }
        let made = directory.join(format!("{MADE}{}", interface.index));
        if made.exists() {
            filters.remove_empty_qdisc(interface.index)?;
            bpffs::remove_file(&made)?;
        }
        bpffs::remove_file(&directory.join(format!("{FILTER}{}", interface.index)))?;
    }
    Ok(())
}

fn index_of(pin: &str) -> Option<u32> {
    pin.rsplit('_').next()?.parse().ok()
}

fn io_error(error: NetlinkError) -> io::Error {
    match error.errno() {
        Some(errno) => io::Error::from_raw_os_error(errno),
        None => io::Error::other(error),
    }
}
