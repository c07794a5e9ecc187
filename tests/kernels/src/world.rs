//! Where the checks take place: a pod, a machine beside it, and a wire between them.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::os::fd::{AsFd as _, AsRawFd as _};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, anyhow};
use linux::netlink::{self, veth};
use linux::netns::Netns;
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sched::{CloneFlags, unshare};

use crate::call::Server;

/// Interface of the pod.
pub(crate) const DEVICE: &str = "eth0";
/// Port of the pod's application, and of the server on the other machine.
pub(crate) const HTTP: u16 = 8080;

const POD: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(10, 77, 0, 2)), IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 2))];
const PEER: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(10, 77, 0, 1)), IpAddr::V6(Ipv6Addr::new(0xfd77, 0, 0, 0, 0, 0, 0, 1))];
/// Addresses for documentation (RFC 5737, RFC 3849): nobody has them, and no route leads there.
const NOBODY: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(192, 0, 2, 1)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 1))];
const LOOPBACK: [IpAddr; 2] = [IpAddr::V4(Ipv4Addr::LOCALHOST), IpAddr::V6(Ipv6Addr::LOCALHOST)];

/// IPv4 or IPv6.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Family {
    /// As people say it.
    pub(crate) name: &'static str,
    index: usize,
}

/// IPv6.
pub(crate) const IPV6: Family = Family { name: "IPv6", index: 1 };
/// Both.
const FAMILIES: [Family; 2] = [Family { name: "IPv4", index: 0 }, IPV6];

impl Family {
    /// One of both addresses, with a port.
    pub(crate) fn of(self, both: [IpAddr; 2], port: u16) -> SocketAddr {
        let [v4, v6] = both;
        SocketAddr::new(if self.index == 0 { v4 } else { v6 }, port)
    }

    /// A port of the pod.
    pub(crate) fn pod(self, port: u16) -> SocketAddr {
        self.of(POD, port)
    }

    /// The server on the other machine.
    pub(crate) fn server(self) -> SocketAddr {
        self.of(PEER, HTTP)
    }

    /// Where nobody is.
    pub(crate) fn nobody(self) -> SocketAddr {
        self.of(NOBODY, 80)
    }

    /// The pod's application by loopback.
    pub(crate) fn loopback(self) -> SocketAddr {
        self.of(LOOPBACK, HTTP)
    }
}

/// The namespaces and servers.
#[derive(Debug)]
pub(crate) struct World {
    /// The families that the kernel has: IPv6 can be switched off when it boots.
    pub(crate) families: &'static [Family],
    /// The pod's namespace.
    pub(crate) pod: Netns,
    /// The other machine.
    pub(crate) peer: Netns,
    /// A pod that got no address.
    pub(crate) bare: Netns,
    /// The pod's application.
    pub(crate) app: Server,
    /// A server on the other machine.
    pub(crate) server: Server,
}

impl World {
    /// Makes everything; it goes with this process.
    pub(crate) fn new() -> Result<Self> {
        let (pod, peer, bare) = (new_netns()?, new_netns()?, new_netns()?);
        netlink::loopback_up(&pod)?;
        netlink::loopback_up(&peer)?;
        let families: &[Family] =
            if Path::new("/proc/sys/net/ipv6").exists() { &FAMILIES } else { FAMILIES.split_at(1).0 };
        let of = |both: [IpAddr; 2]| families.iter().map(move |family| family.of(both, HTTP));
        let prefixed = |both: [IpAddr; 2]| -> Vec<(IpAddr, u8)> {
            of(both).zip([24, 64]).map(|(address, prefix)| (address.ip(), prefix)).collect()
        };
        veth::connect(
            veth::End { netns: &pod, name: DEVICE, addresses: &prefixed(POD) },
            veth::End { netns: &peer, name: "wire0", addresses: &prefixed(PEER) },
        )?;
        let app = Server::start(&pod, "app", of(POD).chain(of(LOOPBACK)))?;
        let server = Server::start(&peer, "server", of(PEER))?;
        Ok(Self { families, pod, peer, bare, app, server })
    }
}

/// A path by which another process finds a namespace of this one.
pub(crate) fn path_of(netns: &Netns) -> PathBuf {
    PathBuf::from(format!("/proc/{}/fd/{}", std::process::id(), netns.as_fd().as_raw_fd()))
}

/// Gives this process mounts of its own, without a BPF file system: the next one that is mounted, with all pins in it,
/// is gone with the process.
pub(crate) fn isolate() -> Result<()> {
    own_mounts()?;
    unmount("bpf")
}

/// From here on mounts of this process are nobody else's. Only for a process that has one thread.
pub(crate) fn own_mounts() -> Result<()> {
    unshare(CloneFlags::CLONE_NEWNS).context("making a mount namespace; run this as root")?;
    let private = MsFlags::MS_REC | MsFlags::MS_PRIVATE;
    mount(None::<&str>, "/", None::<&str>, private, None::<&str>).context("making the mounts private")
}

/// Unmounts every file system of a kind.
pub(crate) fn unmount(kind: &str) -> Result<()> {
    for mounted in linux::mounts::list()?.iter().rev().filter(|mounted| mounted.kind == kind) {
        let path: &Path = &mounted.path;
        umount2(path, MntFlags::MNT_DETACH).with_context(|| format!("unmounting {}", path.display()))?;
    }
    Ok(())
}

fn new_netns() -> Result<Netns> {
    // A thread's namespace is its own; its descriptor stays when the thread has ended.
    let made = std::thread::spawn(|| {
        unshare(CloneFlags::CLONE_NEWNET).context("making a network namespace")?;
        anyhow::Ok(Netns::current()?)
    });
    made.join().map_err(|_| anyhow!("making a network namespace panicked"))?
}
