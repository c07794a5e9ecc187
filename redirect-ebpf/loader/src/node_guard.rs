//! Keeps watch over the node's half of capture: its programs on the root cgroup, its pinned maps.
//!
//! What is there right after [`NodeCapture::open`] is what must stay there. A map whose pin is gone is pinned again: the next
//! agent would make a new one, and know of no pod. Programs are attached again by opening anew, which goes beside the
//! attached ones and disturbs nothing.

use std::collections::HashSet;
use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

use abi::map;
use aya::maps::{Map, MapData, SockHash};
use linux::bpf::{self, Target};
use linux::{bpffs, cgroup};

use crate::error::CaptureError;
use crate::node::{NodeCapture, is_probes_pin};
use crate::others;
use crate::report::{Line, Part, Problem, Report};

const AGAIN: &str = "the agent attaches it again; if it is lost again, look for who removes files below /sys/fs/bpf or runs \
                     bpftool link detach";

/// The watch over a node.
#[derive(Debug)]
pub struct NodeGuard {
    /// Pinned maps: name, id, and a descriptor to pin them again with.
    maps: Vec<(String, u32, OwnedFd)>,
    /// Names of pinned links.
    links: Vec<String>,
    /// The root cgroup, and its id.
    root: (File, u64),
}

impl NodeGuard {
    /// Over a node that has just been opened.
    pub fn new(node: &NodeCapture) -> Result<Self, CaptureError> {
        let seen = |source| CaptureError::Socket { operation: "look at the node's pins", source };
        let root = File::open(cgroup::root()?).map_err(seen)?;
        let id = root.metadata().map_err(seen)?.ino();
        let (mut maps, mut links) = (Vec::new(), Vec::new());
        for name in bpffs::entries(&node.pins().node())? {
            let object = bpf::open_pin(&node.pins().node().join(&name)).map_err(seen)?;
            if bpf::is_map(&object).map_err(seen)? {
                maps.push((name, bpf::map_info(&object).map_err(seen)?.id, object));
            } else if !is_probes_pin(&name) {
                links.push(name);
            }
        }
        maps.sort_by(|a, b| a.0.cmp(&b.0));
        links.sort();
        Ok(Self { maps, links, root: (root, id) })
    }

    /// Looks at each program and map.
    pub fn inspect(&self, node: &NodeCapture) -> Report {
        let directory = node.pins().node();
        let links = self.links.iter().map(|name| {
            let found = self.look_at_link(&directory.join(name));
            Line::new(Part::NodeLink, format!("program {name} on the root cgroup"), found)
        });
        let maps = self.maps.iter().map(|(name, id, _)| {
            Line::new(Part::NodeMap, format!("map {name}"), look_at_map(&directory.join(name), *id))
        });
        let others = match others::on_cgroups(&self.root.0) {
            Ok(others) => others.iter().map(others::line).collect(),
            Err(error) => {
                let what = format!("programs of others cannot be listed: {error}");
                vec![Line::noted(
                    Part::Others,
                    "programs of others",
                    Problem::new(what, "see the agent's log"),
                )]
            }
        };
        Report {
            lines: links
                .chain(node.inspect_probes())
                .chain(maps)
                .chain(node.inspect_enlisted())
                .chain(others)
                .collect(),
        }
    }

    /// Pins lost maps again and, where programs are lost, opens the node's half anew with `open`.
    pub fn repair(
        &self,
        node: &NodeCapture,
        open: impl FnOnce() -> Result<NodeCapture, CaptureError>,
    ) -> Result<(), CaptureError> {
        let directory = node.pins().node();
        bpffs::ensure(&directory)?;
        for (name, id, map) in &self.maps {
            let path = directory.join(name);
            if look_at_map(&path, *id).is_err() {
                bpffs::remove_file(&path)?;
                bpf::pin(map, &path).map_err(CaptureError::socket("pin a map of the node"))?;
            }
        }
        // Its programs use the maps that are pinned, which are this agent's; the handle itself is not needed.
        if self.links.iter().any(|name| self.look_at_link(&directory.join(name)).is_err()) {
            drop(open()?);
        }
        node.repair_enlisted();
        node.repair_probes()
    }

    /// The cookies of the pods whose outbound listener connect(2) finds.
    pub fn agents(&self) -> Result<HashSet<u64>, CaptureError> {
        let (_, id, _) = self
            .maps
            .iter()
            .find(|(name, _, _)| name == map::AGENTS)
            .ok_or(CaptureError::Missing(map::AGENTS))?;
        let error = CaptureError::map;
        let data = MapData::from_id(*id).map_err(error(map::AGENTS))?;
        let agents = Map::from_map_data(data).map_err(error(map::AGENTS))?;
        let agents = SockHash::<_, u64>::try_from(agents).map_err(error(map::AGENTS))?;
        // A walk starts over when the row it stands on goes meanwhile, so it is bounded.
        Ok(agents.keys().flatten().take(2 * abi::MAX_PODS as usize).collect())
    }

    fn look_at_link(&self, path: &Path) -> Result<(), Problem> {
        let info = bpf::open_pin(path).and_then(|link| bpf::link_info(&link)).map_err(|error| {
            Problem::new(format!("its pin {} cannot be opened ({error})", path.display()), AGAIN)
        })?;
        match info.target {
            Target::Cgroup(id) if id == self.root.1 => Ok(()),
            Target::Cgroup(_) => Err(Problem::new("it is attached to another cgroup", AGAIN)),
            _ => Err(Problem::new("somebody detached it: no pod of this node is captured", AGAIN)),
        }
    }
}

fn look_at_map(path: &Path, id: u32) -> Result<(), Problem> {
    const AGAIN: &str =
        "the agent pins it again; if it is lost again, look for who removes files below /sys/fs/bpf";
    let found: io::Result<u32> = bpf::open_pin(path).and_then(|map| Ok(bpf::map_info(&map)?.id));
    match found {
        Ok(found) if found == id => Ok(()),
        Ok(_) => Err(Problem::new("another map is pinned in its place", AGAIN)),
        Err(error) => {
            Err(Problem::new(format!("its pin {} cannot be opened ({error})", path.display()), AGAIN))
        }
    }
}
