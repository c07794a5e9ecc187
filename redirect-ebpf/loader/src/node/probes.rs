//! The program that notes the kubelet's connections: attached to the cgroups that kubelets are in.
//!
//! The kernel asks a sockops program several times for each connection of the cgroup that it is attached to, which on the
//! root would be every connection of the machine. Each link is pinned under the number of its cgroup, so that probes go on
//! while the agent is dead. Losing one costs probes their exemption and nothing else: they are captured, as anybody's are.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use abi::program;
use aya::Ebpf;
use aya::programs::links::FdLink;
use aya::programs::{CgroupAttachMode, SockOps};
use linux::bpf::{self, Target};
use linux::bpffs;

use crate::error::CaptureError;
use crate::pins::pin_link;
use crate::report::{Line, Part, Problem};

const NAME: &str = program::PROBES;

/// The program, and where it is attached.
pub(super) struct Probes {
    object: Ebpf,
    pins: PathBuf,
    /// By the cgroup's number.
    attached: BTreeMap<u64, PathBuf>,
}

/// Whether a pin of the node is one of these.
pub(crate) fn is_pin(name: &str) -> bool {
    name.strip_prefix(NAME).is_some_and(|rest| rest.starts_with('-'))
}

fn pin_name(cgroup: u64) -> String {
    format!("{NAME}-{cgroup:x}")
}

impl Probes {
    /// Loads it; `pins` is where the node's pins are.
    pub(super) fn load(mut object: Ebpf, pins: PathBuf) -> Result<Self, CaptureError> {
        program(&mut object)?.load().map_err(CaptureError::program(NAME))?;
        Ok(Self { object, pins, attached: BTreeMap::new() })
    }

    /// Attaches it to these cgroups, and to no others any more: neither its own earlier ones nor those of an earlier agent.
    pub(super) fn follow(&mut self, cgroups: &BTreeSet<PathBuf>) -> Result<(), CaptureError> {
        let mut wanted = BTreeMap::new();
        for path in cgroups {
            let cgroup = File::open(path).map_err(CaptureError::socket("open the kubelet's cgroup"))?;
            let number =
                cgroup.metadata().map_err(CaptureError::socket("look at the kubelet's cgroup"))?.ino();
            // What an earlier agent has pinned there is replaced, for its maps may be others.
            if !self.attached.contains_key(&number) {
                self.attach(&cgroup, number)?;
            }
            wanted.insert(number, path.clone());
        }
        self.attached = wanted;
        let names: BTreeSet<String> = self.attached.keys().map(|number| pin_name(*number)).collect();
        for gone in bpffs::entries(&self.pins)?.iter().filter(|name| is_pin(name) && !names.contains(*name)) {
            bpffs::remove_file(&self.pins.join(gone))?;
        }
        Ok(())
    }

    /// A line for each cgroup.
    pub(super) fn inspect(&self) -> Vec<Line> {
        let line = |(number, path): (&u64, &PathBuf)| {
            let name = format!("program {NAME} on the kubelet's cgroup {}", path.display());
            Line::new(Part::NodeLink, name, look(&self.pins.join(pin_name(*number)), *number))
        };
        self.attached.iter().map(line).collect()
    }

    /// Attaches it again where it was lost. A cgroup that is gone meanwhile is no loss: the kubelet in it is, too.
    pub(super) fn repair(&mut self) -> Result<(), CaptureError> {
        for (number, path) in self.attached.clone() {
            if look(&self.pins.join(pin_name(number)), number).is_ok() {
                continue;
            }
            match File::open(&path) {
                Ok(cgroup) => self.attach(&cgroup, number)?,
                Err(_) => drop(self.attached.remove(&number)),
            }
        }
        Ok(())
    }

    fn attach(&mut self, cgroup: &File, number: u64) -> Result<(), CaptureError> {
        let program = program(&mut self.object)?;
        // With a link the kernel always lets others be attached beside it; the flag for that is refused.
        let id = program.attach(cgroup, CgroupAttachMode::Single).map_err(CaptureError::program(NAME))?;
        let link = program.take_link(id).map_err(CaptureError::program(NAME))?;
        let link = FdLink::try_from(link).map_err(|source| CaptureError::Link { name: NAME, source })?;
        pin_link(link, &self.pins, &pin_name(number))
    }
}

fn program(object: &mut Ebpf) -> Result<&mut SockOps, CaptureError> {
    let program = object.program_mut(NAME).ok_or(CaptureError::Missing(NAME))?;
    program.try_into().map_err(CaptureError::program(NAME))
}

fn look(pin: &Path, cgroup: u64) -> Result<(), Problem> {
    const AGAIN: &str = "the agent attaches it again; meanwhile the kubelet's probes are captured as anybody's connections are";
    let info = bpf::open_pin(pin).and_then(|link| bpf::link_info(&link)).map_err(|error| {
        Problem::new(format!("its pin {} cannot be opened ({error})", pin.display()), AGAIN)
    })?;
    match info.target {
        Target::Cgroup(id) if id == cgroup => Ok(()),
        _ => Err(Problem::new("somebody detached it, or the cgroup is gone", AGAIN)),
    }
}
