//! The memory of everything of ours on a node: of the agent, which is the one process that stays, and of programs and maps in the kernel.
//!
//! What the kernel sets aside for a program or a map stands in the `fdinfo` of its descriptors. Each counts once, whoever holds it: the
//! agent, a pin, or a program for its maps. Sockets, routes and rules are in `bench capture`, by pod.

use std::collections::BTreeSet;
use std::fs;
use std::os::fd::{AsFd, AsRawFd as _, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result};
use linux::bpf;

use crate::process::Process;

/// Memory in MiB.
pub(super) struct Footprint {
    /// Resident, of the agent.
    pub(super) rss: f64,
    /// The same, with what others map too divided among them.
    pub(super) pss: f64,
    /// Of programs and maps.
    pub(super) bpf: f64,
}

impl Footprint {
    /// Of an agent, and of what it has pinned.
    pub(super) fn measure(agent: u32, pins: &Path) -> Result<Self> {
        let process = Process(agent);
        let bpf = Objects::of(agent, pins)?.memory()? as f64 / (1024.0 * 1024.0);
        Ok(Self { rss: process.rss()?, pss: process.pss()?, bpf })
    }
}

/// Programs and maps, by their numbers.
#[derive(Debug, Default)]
struct Objects {
    programs: BTreeSet<u32>,
    maps: BTreeSet<u32>,
}

impl Objects {
    fn of(process: u32, pins: &Path) -> Result<Self> {
        let mut found = Self::default();
        for entry in fs::read_dir(format!("/proc/{process}/fdinfo"))? {
            // A descriptor may have been closed meanwhile.
            found.note(&fs::read_to_string(entry?.path()).unwrap_or_default());
        }
        for pin in files(pins)? {
            let object = bpf::open_pin(&pin).with_context(|| pin.display().to_string())?;
            found.note(&fdinfo(&object)?);
        }
        for program in &found.programs {
            found.maps.extend(bpf::maps_of(&bpf::program(*program)?)?);
        }
        Ok(found)
    }

    /// Notes what a descriptor is of: a program, a map, or a link and so its program.
    fn note(&mut self, fdinfo: &str) {
        self.programs.extend(field::<u32>(fdinfo, "prog_id"));
        self.maps.extend(field::<u32>(fdinfo, "map_id"));
    }

    /// Bytes.
    fn memory(&self) -> Result<u64> {
        let programs = self.programs.iter().map(|id| bpf::program(*id));
        let maps = self.maps.iter().map(|id| bpf::map(*id));
        programs.chain(maps).map(|object| set_aside(&object?)).sum()
    }
}

fn set_aside(object: &OwnedFd) -> Result<u64> {
    field(&fdinfo(object)?, "memlock")
        .context("the kernel does not tell the memory of a program or map (memlock)")
}

fn fdinfo(object: &impl AsFd) -> Result<String> {
    Ok(fs::read_to_string(format!("/proc/self/fdinfo/{}", object.as_fd().as_raw_fd()))?)
}

fn field<T: std::str::FromStr>(fdinfo: &str, name: &str) -> Option<T> {
    fdinfo.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')?.trim().parse().ok())
}

/// Every file below a directory.
fn files(directory: &Path) -> Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(directory).with_context(|| directory.display().to_string())? {
        let path = entry?.path();
        if path.is_dir() { found.extend(files(&path)?) } else { found.push(path) }
    }
    Ok(found)
}
