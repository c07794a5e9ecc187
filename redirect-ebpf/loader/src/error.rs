//! What can go wrong with capture, in words that say what to do.

use std::io;

use aya::EbpfError;
use aya::maps::MapError;
use aya::pin::PinError;
use aya::programs::ProgramError;
use aya::programs::links::LinkError;
use linux::bpffs::BpffsError;
use linux::cgroup::CgroupError;
use linux::netlink::NetlinkError;
use linux::netns::NetnsError;
use linux::sysctl::SysctlError;
use thiserror::Error;

/// A failure of loading, attaching, pinning or verifying.
#[derive(Debug, Error)]
pub enum CaptureError {
    /// Privileges are missing.
    #[error("capture needs the capabilities {}; run the agent as root, or grant them", .0.join(", "))]
    Privilege(Vec<&'static str>),
    /// The kernel lacks something.
    #[error(
        "this kernel ({release}) lacks {feature}, which capture needs: Linux {minimum} or newer is required"
    )]
    Kernel {
        /// What uname says.
        release: String,
        /// What is missing.
        feature: &'static str,
        /// First version that has it.
        minimum: &'static str,
    },
    /// A namespace is gone or cannot be entered.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// The namespace is the agent's, whatever path it was given by.
    #[error(
        "this is the agent's own network namespace, and not a pod's; pods on the host's network cannot be in the mesh"
    )]
    OwnNamespace,
    /// The pod has no address yet.
    #[error(
        "the pod's network namespace has no address besides loopback's; the plugins before culvert-cni in the CNI chain \
         must give it one first"
    )]
    NoAddress,
    /// More addresses than can be captured, and none may be left out.
    #[error("the pod has {0} addresses and capture takes {max}; take some away", max = abi::MAX_ADDRESSES)]
    TooManyAddresses(usize),
    /// Somebody else's agent captures the pod.
    #[error(
        "another installation of culvert captures this pod (sk_lookup program {0}); stop it and run its `culvert detach`, or \
         take the pod out of its mesh"
    )]
    Installation(u32),
    /// cgroup v2 is not there.
    #[error(transparent)]
    Cgroup(#[from] CgroupError),
    /// bpffs failed.
    #[error(transparent)]
    Bpffs(#[from] BpffsError),
    /// Routing failed.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// A setting failed.
    #[error(transparent)]
    Sysctl(#[from] SysctlError),
    /// The object could not be loaded.
    #[error("eBPF object: {0}")]
    Load(#[from] EbpfError),
    /// A program could not be loaded or attached.
    #[error("eBPF program {name}: {source}")]
    Program {
        /// Its name.
        name: &'static str,
        /// Cause.
        source: ProgramError,
    },
    /// A link could not be pinned.
    #[error("eBPF link of {name}: {source}")]
    Link {
        /// Program's name.
        name: &'static str,
        /// Cause.
        source: LinkError,
    },
    /// A pin could not be made.
    #[error("pin of {name}: {source}")]
    Pin {
        /// Program's or map's name.
        name: String,
        /// Cause.
        source: PinError,
    },
    /// A map refused.
    #[error("eBPF map {name}: {source}")]
    Map {
        /// Its name.
        name: &'static str,
        /// Cause.
        source: MapError,
    },
    /// The object lacks what the loader expects: loader and object were built from different sources.
    #[error("the embedded eBPF object has no {0}; build again: cargo xtask build-ebpf")]
    Missing(&'static str),
    /// A socket in the pod could not be made.
    #[error("{operation} in the pod's network namespace: {source}")]
    Socket {
        /// What was tried.
        operation: &'static str,
        /// Cause.
        source: io::Error,
    },
    /// An interface cannot be guarded.
    #[error(
        "the egress guard cannot be put on interface {interface}: {source}; before Linux 6.6 it needs the kernel modules \
         sch_ingress and cls_bpf (as root: modprobe -a sch_ingress cls_bpf). Load them, take the interface out of the pod, or \
         run the agent without --egress-guard"
    )]
    Guard {
        /// Its name.
        interface: String,
        /// Cause.
        source: io::Error,
    },
    /// Everything is attached, but a connection of the pod does not arrive.
    #[error("capture of the pod is not whole: {0}")]
    NotCaptured(String),
}

impl CaptureError {
    pub(crate) fn program(name: &'static str) -> impl FnOnce(ProgramError) -> Self {
        move |source| Self::Program { name, source }
    }

    pub(crate) fn map(name: &'static str) -> impl FnOnce(MapError) -> Self {
        move |source| Self::Map { name, source }
    }

    pub(crate) fn socket(operation: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |source| Self::Socket { operation, source }
    }
}
