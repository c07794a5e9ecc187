//! What the API says of this node's pods, as one immutable value.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::sync::Arc;

use control::file::Enrollment;

use super::plan::Word;
use crate::enrollment::PodKey;

/// All of it.
#[derive(Clone, Debug, Default)]
pub(crate) struct View {
    /// Whether pods and namespaces have been listed; before, what is not here may be there all the same.
    pub(crate) is_complete: bool,
    /// The pods of this node.
    pub(crate) pods: HashMap<PodKey, Arc<Known>>,
    /// The namespaces of the cluster that are in the mesh by their labels.
    pub(crate) namespaces: Arc<BTreeSet<String>>,
}

/// A pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Known {
    /// In the API.
    pub(crate) uid: Arc<str>,
    /// As the container runtime and the kernel have it.
    pub(crate) runtime_uid: Arc<str>,
    /// Whether it is in the mesh.
    pub(crate) standing: Standing,
    /// Its addresses; none before it has a sandbox.
    pub(crate) ips: Vec<IpAddr>,
    /// What its annotation says.
    pub(crate) says: Option<Word>,
    /// Of the object; 0 where it is no number.
    pub(crate) version: u64,
}

/// Whether a pod is in the mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Standing {
    /// It is, and is to be captured so.
    In(Enrollment),
    /// It is not.
    Out,
    /// Its namespace is not known yet.
    Undecided,
}
