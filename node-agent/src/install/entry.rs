//! Our plugin's entry in a network configuration: what the plugin is told by it, and what removal must know.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// The plugin: its `type`, and the name of its binary.
pub(crate) const PLUGIN: &str = "culvert-cni";

/// The entry. What is absent has the plugin's own default.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub(crate) struct Entry {
    #[serde(rename = "type")]
    kind: String,
    /// The agent's socket, on the host.
    pub(crate) socket: PathBuf,
    /// Namespaces whose pods never wait for the agent.
    pub(crate) exclude_namespaces: Vec<String>,
    /// What the plugin knows by when the agent is not there.
    pub(crate) ambient_list: PathBuf,
    /// How it asks the Kubernetes API then, on the host.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) kubeconfig: Option<PathBuf>,
    /// The agent's own pods, which must not wait for the agent.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) agent_pod: Option<AgentPod>,
    capabilities: Capabilities,
    /// The file that was wrapped into the list that this entry is in. The plugin has no use for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) wraps: Option<String>,
    /// The texts of entries that this one took the place of, to be put back.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub(crate) replaces: Vec<String>,
}

/// How the agent's pods are told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct AgentPod {
    /// Their namespace.
    pub(crate) namespace: String,
    /// What their names begin with; five letters or digits follow.
    pub(crate) name_prefix: String,
}

/// What the runtime is to hand over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
struct Capabilities {
    #[serde(rename = "io.kubernetes.cri.pod-annotations", default)]
    pod_annotations: bool,
}

impl Entry {
    /// An entry that tells the plugin where the agent is.
    pub(crate) fn new(socket: PathBuf, ambient_list: PathBuf, exclude_namespaces: Vec<String>) -> Self {
        Self {
            kind: PLUGIN.to_owned(),
            socket,
            exclude_namespaces,
            ambient_list,
            capabilities: Capabilities { pod_annotations: true },
            ..Self::default()
        }
    }

    /// As one line.
    pub(crate) fn to_json(&self) -> String {
        // Paths come from UTF-8 text (settings), so that this always becomes JSON.
        serde_json::to_string(self).unwrap_or_default()
    }
}
