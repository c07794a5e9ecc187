//! The cgroup v2 hierarchy: its root, where the node's programs are attached, and where in it a process is.
//!
//! A container often sees a part of the hierarchy as if it were the whole. A program that is attached there would see the
//! calls of that part alone, so the root is known by what the kernel gives to every other cgroup and not to it.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use thiserror::Error;

use crate::mounts::{self, Mount};

const KIND: &str = "cgroup2";

/// Why there is no cgroup to attach to.
#[derive(Debug, Error)]
pub enum CgroupError {
    /// cgroup v2 is not mounted.
    #[error(
        "no cgroup v2 hierarchy is mounted, and capture needs one: boot with systemd.unified_cgroup_hierarchy=1, or \
         mount -t cgroup2 none /sys/fs/cgroup/unified"
    )]
    NotMounted,
    /// Only a part of it is mounted.
    #[error(
        "only a part of the cgroup v2 hierarchy is mounted ({0}), so pods would not be captured: mount the host's \
         /sys/fs/cgroup into the agent's container"
    )]
    PartOnly(PathBuf),
    /// The mount table cannot be read.
    #[error("/proc/self/mountinfo cannot be read: {0}")]
    Mounts(#[from] io::Error),
}

/// Where the root of cgroup v2 is mounted, unified or beside v1.
pub fn root() -> Result<PathBuf, CgroupError> {
    Ok(whole()?.path)
}

/// The cgroup of a process, as a directory; `process` is its directory of a process table.
///
/// None where it cannot be told for sure: the process is gone, or is in a part of the hierarchy that the agent's view of it does not
/// name. See cgroup_namespaces(7) for how paths look from inside a namespace.
pub fn of(process: &Path) -> Option<PathBuf> {
    let mount = whole().ok()?;
    let text = fs::read_to_string(process.join("cgroup")).ok()?;
    let directory = mount.path.join(below(&mount.root, named(&text)?)?);
    let number = process.file_name()?.to_str()?;
    // A process of another pid namespace than ours is listed as 0.
    let members = fs::read_to_string(directory.join("cgroup.procs")).ok()?;
    members.lines().any(|member| member == number || member == "0").then_some(directory)
}

fn whole() -> Result<Mount, CgroupError> {
    let mut part = None;
    for mount in mounts::list()?.into_iter().filter(|mount| mount.kind == KIND) {
        if is_root(&mount.path) {
            return Ok(mount);
        }
        part.get_or_insert(mount.path);
    }
    Err(part.map_or(CgroupError::NotMounted, CgroupError::PartOnly))
}

/// Every cgroup but the root has this file (cgroup-v2.rst, "Core Interface Files").
fn is_root(directory: &Path) -> bool {
    directory.join("cgroup.procs").exists() && !directory.join("cgroup.events").exists()
}

/// The path that a process's file `cgroup` names for v2.
fn named(text: &str) -> Option<&Path> {
    text.lines().find_map(|line| line.strip_prefix("0::")).map(Path::new)
}

/// A path as seen from our cgroup namespace, made relative to a mount whose root is seen from there as well.
fn below<'a>(root: &Path, path: &'a Path) -> Option<&'a Path> {
    let rest = path.strip_prefix(root).ok()?;
    rest.components().all(|part| matches!(part, std::path::Component::Normal(_))).then_some(rest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_root_is_told_from_its_parts() {
        let root = root().unwrap();
        assert!(is_root(&root));
        assert!(!is_root(Path::new("/proc")));
        let part = root.join(format!("culvert-test-{}", std::process::id()));
        // Whoever may not make a cgroup has nothing to tell apart.
        if fs::create_dir(&part).is_ok() {
            let told = is_root(&part);
            fs::remove_dir(&part).unwrap();
            assert!(!told);
        }
    }

    #[test]
    fn our_own_cgroup_is_found_and_holds_us() {
        let own = of(&Path::new("/proc").join(std::process::id().to_string())).unwrap();
        let processes = fs::read_to_string(own.join("cgroup.procs")).unwrap();
        assert!(processes.lines().any(|line| line == std::process::id().to_string()));
        assert_eq!(of(Path::new("/proc/0")), None);
    }

    #[test]
    fn paths_are_seen_from_a_namespace() {
        let line = "12:memory:/x\n0::/system.slice/kubelet.service\n";
        let kubelet = Path::new("/system.slice/kubelet.service");
        assert_eq!(named(line), Some(kubelet));
        assert_eq!(named("1:name=systemd:/\n"), None);
        let relative = Some(Path::new("system.slice/kubelet.service"));
        assert_eq!(below(Path::new("/"), kubelet), relative);
        // From inside a container whose mount shows the host's hierarchy.
        let (root, seen) = (Path::new("/../.."), Path::new("/../../system.slice/kubelet.service"));
        assert_eq!(below(root, seen), relative);
        assert_eq!(below(root, Path::new("/../kubelet.service")), None);
        assert_eq!(below(Path::new("/"), seen), None);
    }
}
