//! What is left on a node when its pods are gone: asked of the kernel, of the file system and of the runtime.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Result, ensure};
use harness::wait::eventually_ok;
use harness::{command, containers};
use linux::bpf;

use crate::{CriNode, LIMIT};

/// A node without pods.
#[derive(Debug, PartialEq, Eq)]
pub struct Empty {
    pins: BTreeSet<PathBuf>,
}

impl Empty {
    /// What the node holds without a pod, which it is without now.
    pub fn look(node: &CriNode) -> Result<Self> {
        Ok(Self { pins: below(&node.node.bpffs())? })
    }

    /// Waits until the node is as it was, `cookies` being the namespaces of pods that were in the mesh.
    pub fn wait(&self, node: &CriNode, cookies: &[u64]) -> Result<()> {
        eventually_ok("nothing to be left of the pods", LIMIT, || self.nothing_more(node))?;
        // Asking for a row is removing it, so this comes last.
        for pin in self.pins.iter().filter(|pin| pin.parent().is_some_and(|dir| dir.ends_with("node"))) {
            let map = bpf::open_pin(pin)?;
            if bpf::is_map(&map)? && bpf::map_info(&map)?.key_size == 8 {
                for cookie in cookies {
                    let was_there = bpf::delete_row(&map, &cookie.to_ne_bytes()).unwrap_or(false);
                    ensure!(!was_there, "a row of a pod that is gone in {}", pin.display());
                }
            }
        }
        Ok(())
    }

    fn nothing_more(&self, node: &CriNode) -> Result<()> {
        let sandboxes = node.cri.sandboxes()?;
        ensure!(sandboxes.is_empty(), "{} sandboxes", sandboxes.len());
        let name = node.node.netns().file_name().unwrap_or_default().to_string_lossy().into_owned();
        let veths = command::ip(&format!("-n {name} -o link show type veth"))?;
        // The one is the node's own, to the wire.
        ensure!(veths.lines().count() == 1, "interfaces: {veths}");
        let own = node.node.agent_dir();
        let reserved = own.parent().unwrap_or(&own).join("ipam").join(node.node.name());
        for (what, left) in [
            ("records", files(&own.join("pods"), |name| name.ends_with(".json"))),
            ("namespaces", files(&node.containerd.namespaces(), |_| true)),
            ("addresses", addresses(&reserved)),
        ] {
            ensure!(left.is_empty(), "{what}: {left:?}");
        }
        let pins = below(&node.node.bpffs())?;
        ensure!(pins == self.pins, "pins: {:?}", pins.difference(&self.pins).collect::<Vec<_>>());
        let cgroup = containers::cgroup_of(node.node.run().id());
        let processes = containers::processes(&cgroup);
        ensure!(processes.is_empty(), "processes: {processes:?}");
        Ok(())
    }
}

/// Reservations of host-local: one directory a network, one file an address.
fn addresses(dir: &Path) -> Vec<PathBuf> {
    let networks = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    networks.flat_map(|network| files(&network, |name| name.parse::<std::net::IpAddr>().is_ok())).collect()
}

fn files(dir: &Path, wanted: impl Fn(&str) -> bool) -> Vec<PathBuf> {
    let entries = fs::read_dir(dir).into_iter().flatten().flatten().map(|entry| entry.path());
    entries.filter(|path| path.file_name().is_some_and(|name| wanted(&name.to_string_lossy()))).collect()
}

fn below(dir: &Path) -> Result<BTreeSet<PathBuf>> {
    let (mut found, mut open) = (BTreeSet::new(), vec![dir.to_owned()]);
    while let Some(directory) = open.pop() {
        for entry in fs::read_dir(&directory)? {
            let path = entry?.path();
            if path.is_dir() {
                open.push(path.clone());
            }
            found.insert(path);
        }
    }
    Ok(found)
}
