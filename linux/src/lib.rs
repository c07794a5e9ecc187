//! The fence around the kernel: the few calls that need `unsafe`, privileges or netlink, behind safe types.
//!
//! Owns network-namespace entry, socket options the standard library lacks, listeners, descriptor passing over Unix
//! sockets, processes by descriptor, policy routes, sysctls, what the process uses, and finding the cgroup and BPF file systems. It knows nothing of pods,
//! meshes or eBPF programs. Every error names the operation and its object; nothing here retries.

#[cfg(feature = "acceptor")]
pub mod acceptor;
pub mod bpf;
pub mod bpffs;
pub mod cgroup;
pub mod container;
pub mod datagram;
pub mod fdpass;
pub mod guest;
pub mod hidden;
pub mod limits;
pub mod malloc;
pub mod mounts;
#[cfg(feature = "netlink")]
pub mod netlink;
pub mod netns;
pub mod pidfd;
pub mod pods;
pub mod privilege;
pub mod process;
pub mod program;
pub mod scheduling;
pub mod signals;
pub mod sockopt;
pub mod sysctl;
#[cfg(feature = "testing")]
pub mod testing;
pub mod usage;
pub mod wall_clock;
