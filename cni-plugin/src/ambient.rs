//! Is a pod in the mesh? The rules that agent and plugin share, as pure functions of what Kubernetes says of the pod.
//!
//! In this order: a namespace that is excluded is out; so is a pod on the host's network, and a pod that has a sidecar, which is
//! another data plane's; then the [`Selectors`] decide, which are labels unless the mesh says otherwise. Invariant: the answer depends on
//! nothing but the arguments, so that agent and plugin cannot differ.

mod list;
mod selectors;

use std::collections::BTreeMap;
use std::fmt;

pub use self::list::{AmbientList, ListError, Listed};
pub use self::selectors::{Expression, LabelSelector, Operator, Selectors, SelectorsError};

/// The label of pods and namespaces that says which data plane they want.
pub const DATAPLANE_MODE: &str = "istio.io/dataplane-mode";
/// Its value for the mesh that this agent serves.
pub const AMBIENT: &str = "ambient";
/// Its value for a pod that stays out, whatever its namespace says.
pub const NONE: &str = "none";
/// The annotation of pods into which a sidecar was injected.
pub const SIDECAR_STATUS: &str = "sidecar.istio.io/status";

/// Labels or annotations.
pub type Map = BTreeMap<String, String>;

/// What the decision needs to know of a pod.
#[derive(Debug, Clone, Copy)]
pub struct PodFacts<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its name.
    pub name: &'a str,
    /// Its labels.
    pub labels: &'a Map,
    /// Its annotations.
    pub annotations: &'a Map,
    /// Whether it shares the host's network.
    pub host_network: bool,
}

/// Whether a pod is in the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Decision {
    /// It is, and its traffic must be captured.
    Ambient,
    /// It is not.
    No(Reason),
}

/// Why a pod is not in the mesh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// Its namespace never takes part.
    ExcludedNamespace,
    /// Its traffic is the host's.
    HostNetwork,
    /// Another data plane serves it.
    Sidecar,
    /// Neither its labels nor its namespace's ask for it.
    NotSelected,
}

impl Decision {
    /// Whether the pod is in the mesh.
    pub fn is_ambient(self) -> bool {
        self == Self::Ambient
    }
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::ExcludedNamespace => "its namespace is excluded",
            Self::HostNetwork => "it is on the host's network",
            Self::Sidecar => "it has a sidecar",
            Self::NotSelected => "its labels, or its namespace's, do not ask for it",
        })
    }
}

/// Decides about a pod of a namespace that has the labels `namespace`.
pub fn decide(pod: PodFacts<'_>, namespace: &Map, selectors: &Selectors, excluded: &[String]) -> Decision {
    decide_by(pod, excluded, || selectors.select(pod.labels, namespace))
}

/// The same of a pod whose namespace is in the mesh, by labels that are not known.
pub fn decide_within(pod: PodFacts<'_>, selectors: &Selectors, excluded: &[String]) -> Decision {
    decide_by(pod, excluded, || selectors.may_select(pod.labels))
}

fn decide_by(pod: PodFacts<'_>, excluded: &[String], is_selected: impl FnOnce() -> bool) -> Decision {
    if excluded.iter().any(|name| name == pod.namespace) {
        return Decision::No(Reason::ExcludedNamespace);
    }
    if pod.host_network {
        return Decision::No(Reason::HostNetwork);
    }
    if pod.annotations.get(SIDECAR_STATUS).is_some_and(|status| !status.is_empty()) {
        return Decision::No(Reason::Sidecar);
    }
    if is_selected() { Decision::Ambient } else { Decision::No(Reason::NotSelected) }
}

#[cfg(test)]
mod tests;
