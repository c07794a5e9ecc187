//! What the processes of a network namespace see in their own file system.
//!
//! Only processes of containers count: one that shares the host's mounts (somebody who entered the namespace from the host to look
//! around) sees the host's files, which say nothing about the pod. Invariant: whatever a container puts in a file's place, a link
//! out of its root, a pipe, an endless device, no file but its own is read, none is waited for, and no more of it than the limit.

use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};

use crate::netns::NetnsId;

/// Processes of a namespace that are tried before it counts as without such a file.
const MAX_TRIED: usize = 8;

/// The text of a regular file as the oldest process of a container in a network namespace sees it; none where there is no such
/// process, or no such file. `path` is absolute; `proc` is the process table (`/proc`, or the host's). Bytes that are no UTF-8 are
/// replaced, and what is beyond `limit` bytes is left out. Needs Linux 5.6 (`openat2`).
pub fn read_in(proc: &Path, netns: NetnsId, path: &Path, limit: u64) -> io::Result<Option<String>> {
    let of_hosts = [mounts_of(&proc.join("1")), mounts_of(Path::new("/proc/self"))];
    let mut members: Vec<(u32, PathBuf)> = Vec::new();
    for entry in std::fs::read_dir(proc)?.flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        let process = entry.path();
        // One that ended meanwhile is no error.
        let Ok(metadata) = std::fs::metadata(process.join("ns/net")) else { continue };
        if (metadata.dev(), metadata.ino()) == (netns.device, netns.inode) {
            members.push((pid, process));
        }
    }
    // The first process of a pod is there before whoever looks into it.
    members.sort_unstable();
    let in_container = members
        .iter()
        .filter(|(_, process)| mounts_of(process).is_some_and(|mounts| !of_hosts.contains(&Some(mounts))));
    Ok(in_container.take(MAX_TRIED).find_map(|(_, process)| read_as_seen_by(process, path, limit).ok()))
}

/// The mount namespace of a process.
fn mounts_of(process: &Path) -> Option<(u64, u64)> {
    let metadata = std::fs::metadata(process.join("ns/mnt")).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

fn read_as_seen_by(process: &Path, path: &Path, limit: u64) -> io::Result<String> {
    let root = File::open(process.join("root"))?;
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_IN_ROOT | ResolveFlag::RESOLVE_NO_MAGICLINKS);
    let file = File::from(openat2(&root, path, how)?);
    if !file.metadata()?.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(limit).read_to_end(&mut bytes)?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use std::os::unix::process::CommandExt as _;
    use std::process::{Child, Command};

    use super::*;
    use crate::netns::Netns;

    /// A process in a network namespace of its own, and in mounts of its own if it is to look like a container's.
    fn process(unshare: &[&str]) -> Child {
        let mut command = Command::new("unshare");
        command.args(unshare).args(["sleep", "60"]).process_group(0);
        command.spawn().unwrap()
    }

    fn netns_of(child: &Child) -> NetnsId {
        let own = Netns::current().unwrap().id();
        let path = PathBuf::from(format!("/proc/{}/ns/net", child.id()));
        (0..500)
            .find_map(|_| {
                std::thread::sleep(std::time::Duration::from_millis(10));
                Netns::open(&path).ok().map(|netns| netns.id()).filter(|id| *id != own)
            })
            .unwrap()
    }

    fn read(netns: NetnsId, path: &str) -> Option<String> {
        read_in(Path::new("/proc"), netns, Path::new(path), 1000).unwrap()
    }

    #[test]
    fn files_of_containers_are_read_and_those_of_the_host_are_not() {
        let directory = std::env::temp_dir().join(format!("culvert-process-{}", std::process::id()));
        std::fs::create_dir_all(directory.join("etc")).unwrap();
        std::fs::write(directory.join("etc/resolv.conf"), "x".repeat(2000)).unwrap();
        std::fs::write(directory.join("etc/hosts"), b"\xff").unwrap();
        std::os::unix::fs::symlink("hosts", directory.join("etc/link")).unwrap();
        nix::unistd::mkfifo(&directory.join("etc/pipe"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let mut guest = process(&["--net"]);
        assert_eq!(read(netns_of(&guest), "/etc/passwd"), None, "the host's files");
        let mut child = process(&["--net", "--mount"]);
        let netns = netns_of(&child);
        let path = |name: &str| directory.join("etc").join(name).display().to_string();
        assert_eq!(read(netns, &path("resolv.conf")).map(|text| text.len()), Some(1000));
        assert_eq!(read(netns, &path("hosts")).as_deref(), Some("\u{fffd}"));
        assert!(read(netns, &path("link")).is_some());
        assert_eq!(read(netns, &path("pipe")), None);
        assert_eq!(read(netns, &path("absent")), None);
        assert_eq!(read(netns, "/dev/zero"), None);
        for process in [&mut guest, &mut child] {
            process.kill().unwrap();
            process.wait().unwrap();
        }
        assert_eq!(read(netns, &path("hosts")), None, "nobody is left");
        std::fs::remove_dir_all(&directory).unwrap();
    }

    #[test]
    fn links_do_not_lead_out_of_a_root() {
        let directory = std::env::temp_dir().join(format!("culvert-root-{}", std::process::id()));
        std::fs::create_dir_all(directory.join("root/etc")).unwrap();
        std::fs::write(directory.join("secret"), "secret").unwrap();
        std::fs::write(directory.join("root/etc/hosts"), "hosts").unwrap();
        std::os::unix::fs::symlink("../../secret", directory.join("root/etc/out")).unwrap();
        std::os::unix::fs::symlink(directory.join("secret"), directory.join("root/etc/far")).unwrap();
        std::os::unix::fs::symlink("/etc/hosts", directory.join("root/etc/in")).unwrap();
        let read = |name: &str| read_as_seen_by(&directory, &Path::new("/etc").join(name), 100).ok();
        assert_eq!(read("in").as_deref(), Some("hosts"));
        assert_eq!(read("out"), None);
        assert_eq!(read("far"), None);
        std::fs::remove_dir_all(&directory).unwrap();
    }
}
