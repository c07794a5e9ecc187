//! Why a pod is not enrolled.

use std::net::IpAddr;
use std::path::PathBuf;

use linux::container::ContainerError;
use linux::netlink::NetlinkError;
use linux::netns::NetnsError;
use redirect::CaptureError;
use thiserror::Error;

use super::record::RecordError;

/// A failure to enrol or release a pod; other pods are not touched by it.
#[derive(Debug, Error)]
pub(crate) enum EnrollError {
    /// The namespace is gone or is none.
    #[error(transparent)]
    Netns(#[from] NetnsError),
    /// The entry does not say where the pod is.
    #[error("the entry names neither netns nor container; the pod is enrolled when the CNI plugin brings it")]
    NoLocation,
    /// The namespace is another pod's.
    #[error(
        "the pod is said to have address {said}, but its network namespace has {found:?}; is it another pod's?"
    )]
    OtherAddresses {
        /// As the CNI plugins before ours said.
        said: IpAddr,
        /// As they are.
        found: Vec<IpAddr>,
    },
    /// The pod's sockets are not in its namespace.
    #[error(
        "the pod has a network stack of its own ({0}), as under Kata Containers and gVisor: its connections are no sockets of \
         this node, and cannot be captured; run it under a runtime without one, or take it out of the mesh"
    )]
    Guest(String),
    /// Another mesh has captured it.
    #[error(
        "the pod holds rules of istio-cni (mark 0x111 to table 100), by which its traffic would go to a ztunnel that is not there: \
         drain this node, or start the pod again, and it comes up without them"
    )]
    OtherMesh,
    /// It cannot be told whether another mesh has captured it.
    #[error(transparent)]
    Netlink(#[from] NetlinkError),
    /// The container is not there.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// The process table.
    #[error(
        "the processes of the node cannot be looked through at {path}: {source}; is the host's /proc mounted there?"
    )]
    Processes {
        /// Where it is looked for.
        path: PathBuf,
        /// Cause.
        source: std::io::Error,
    },
    /// The namespace's addresses cannot be listed.
    #[error("the addresses of a network namespace: {0}")]
    Addresses(linux::netlink::NetlinkError),
    /// None of the pod's processes is where its addresses are.
    #[error(
        "no process of the pod (UID {uid}) is in a network namespace with one of its addresses {ips:?}; its processes are in \
         {namespaces} namespaces. It is tried again; if it is running, see that the agent sees the host's processes (--proc) and their \
         cgroups, or restart the pod"
    )]
    NotHere {
        /// Of the pod.
        uid: String,
        /// In which it has processes.
        namespaces: usize,
        /// That the API says it has.
        ips: Vec<IpAddr>,
    },
    /// Capture failed.
    #[error(transparent)]
    Capture(#[from] CaptureError),
    /// A socket that another agent handed over cannot be duplicated.
    #[error("the listeners of the agent before this one cannot be used: {0}; check the limit of open files")]
    Inherited(std::io::Error),
    /// The record could not be kept.
    #[error(transparent)]
    Record(#[from] RecordError),
    /// A defect of ours, kept to the pod it met.
    #[error("a task of the agent failed: {0}")]
    Panicked(tokio::task::JoinError),
}

impl EnrollError {
    /// Whether a pod that is only just starting is like that, and will not be in a moment.
    pub(super) fn is_of_a_start(&self) -> bool {
        matches!(self, Self::NotHere { .. })
    }
}
