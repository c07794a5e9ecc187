//! What the kernel and the agent's process hold for a pod: asked of them, not of the agent.

use std::collections::BTreeSet;
use std::path::PathBuf;

use anyhow::{Context as _, Result};
use harness::{Agent, Node, Pod, command};
use linux::bpf::{self, Target};
use linux::netns::Netns;

/// Where the node's agent pins.
pub fn pins_of(node: &Node) -> PathBuf {
    node.bpffs().join("v1")
}

/// The kernel's number of a pod's namespace.
pub fn cookie(pod: &Pod) -> Result<u64> {
    Ok(Netns::open(pod.netns())?.cookie()?)
}

/// What is held for one namespace.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    /// Links attached to it.
    pub links: BTreeSet<u32>,
    /// Maps of the programs attached to it, but for those that all pods share.
    pub maps: BTreeSet<u32>,
}

impl Held {
    /// For the namespace of a pod.
    pub fn of(pod: &Pod) -> Result<Self> {
        let inode = Netns::open(pod.netns())?.id().inode;
        let attached = |target| matches!(target, Target::Netns(own) if u64::from(own) == inode);
        let (mut links, mut maps) = (BTreeSet::new(), BTreeSet::new());
        for link in bpf::links()?.into_iter().filter(|link| attached(link.target)) {
            links.insert(link.id);
            maps.extend(bpf::maps_of(&bpf::program(link.program)?)?);
        }
        for entry in std::fs::read_dir(pins_of(pod.node()).join("node"))? {
            let object = bpf::open_pin(&entry?.path())?;
            if bpf::is_map(&object)? {
                maps.remove(&bpf::map_info(&object)?.id);
            }
        }
        Ok(Self { links, maps })
    }

    /// How much of it is still there.
    pub fn left(&self) -> Result<Self> {
        let links = bpf::links()?.into_iter().map(|link| link.id).collect();
        let mut maps = BTreeSet::new();
        for id in &self.maps {
            if bpf::map_exists(*id)? {
                maps.insert(*id);
            }
        }
        Ok(Self { links: self.links.intersection(&links).copied().collect(), maps })
    }

    /// Is there nothing?
    pub fn is_nothing(&self) -> bool {
        self.links.is_empty() && self.maps.is_empty()
    }
}

/// What an agent's descriptors are open on: `socket:[1]`, `net:[2]`, `anon_inode:bpf-map`. Those of its own namespace are left
/// out: each thread has one, and there are now more threads and now fewer.
pub fn descriptors(agent: &Agent) -> Result<Vec<String>> {
    let pid = agent.pid().context("the agent is not running")?;
    let own = std::fs::read_link(format!("/proc/{pid}/ns/net"))?;
    let open = std::fs::read_dir(format!("/proc/{pid}/fd"))?;
    let targets = open.flatten().filter_map(|fd| std::fs::read_link(fd.path()).ok());
    Ok(targets.filter(|target| *target != own).map(|target| target.display().to_string()).collect())
}

/// Every pin of a node.
pub fn pins(node: &Node) -> Result<BTreeSet<PathBuf>> {
    let mut pins = BTreeSet::new();
    let mut open = vec![node.bpffs()];
    while let Some(directory) = open.pop() {
        for entry in std::fs::read_dir(&directory)? {
            let path = entry?.path();
            if path.is_dir() {
                open.push(path.clone());
            }
            pins.insert(path);
        }
    }
    Ok(pins)
}

/// Rules and routes of a pod's namespace.
pub fn routing(pod: &Pod) -> Result<String> {
    let name = pod.netns().file_name().context("name")?.to_string_lossy().into_owned();
    let mut all = String::new();
    for family in ["-4", "-6"] {
        all += &command::ip(&format!("-n {name} {family} rule"))?;
        all += &command::ip(&format!("-n {name} {family} route show table all"))?;
    }
    Ok(all)
}
