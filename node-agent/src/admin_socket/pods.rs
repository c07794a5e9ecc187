//! The pods of this node that are to be in the mesh, one by one and in short.

use std::collections::HashMap;
use std::io;

use mesh::Snapshot;
use serde::{Deserialize, Serialize};
use tunnel::Direction;

use super::protocol::Answer;
use super::{Subjects, Teller};
use crate::admin::Node;
use crate::enrollment::{PodKey, PodState};

/// Longest text of what is the matter with a pod, in characters.
const MAX_WHY: usize = 1024;

/// A pod in short.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct PodRow {
    /// `namespace/name`.
    pub(crate) pod: String,
    /// `enrolled`, `degraded`, `pending`.
    pub(crate) state: String,
    /// What is the matter with it, if something is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) why: Option<String>,
    /// Who it is; unknown while its workload has not come.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) identity: Option<String>,
    /// Where it is reached.
    pub(crate) addresses: Vec<String>,
    /// What is in front of it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) waypoint: Option<String>,
    /// Connections to it that are open.
    pub(crate) inbound: usize,
    /// Connections from it that are open.
    pub(crate) outbound: usize,
}

/// Tells of those of a name, or of all.
pub(super) fn tell(subjects: &Subjects, only: Option<&str>, send: &mut Teller<'_>) -> io::Result<()> {
    let mut pods = subjects.node.pods();
    pods.retain(|(pod, _)| only.is_none_or(|only| pod.is_called(only)));
    let rows = rows(&subjects.store.load(), &*subjects.node, pods);
    rows.into_iter().try_for_each(|row| send(Answer::PodRow(row)))
}

/// Pods of a node, in short.
pub(crate) fn rows(snapshot: &Snapshot, node: &dyn Node, pods: Vec<(PodKey, PodState)>) -> Vec<PodRow> {
    let open = open(node);
    pods.iter().map(|(pod, state)| row(snapshot, pod, state, &open)).collect()
}

/// How many connections are open in and out, by the uid of the workload.
fn open(node: &dyn Node) -> HashMap<String, (usize, usize)> {
    let mut open: HashMap<String, (usize, usize)> = HashMap::new();
    for connection in node.connections() {
        let (inbound, outbound) = open.entry(connection.workload.to_string()).or_default();
        match connection.direction {
            Direction::Inbound => *inbound += 1,
            Direction::Outbound => *outbound += 1,
        }
    }
    open
}

fn row(
    snapshot: &Snapshot,
    pod: &PodKey,
    state: &PodState,
    open: &HashMap<String, (usize, usize)>,
) -> PodRow {
    let workload = snapshot.workload_of_pod(&pod.namespace, &pod.name);
    let (inbound, outbound) =
        workload.and_then(|workload| open.get(&*workload.uid)).copied().unwrap_or_default();
    PodRow {
        pod: pod.to_string(),
        state: state.as_str().to_owned(),
        why: state.why().map(|why| why.chars().take(MAX_WHY).collect()),
        identity: workload.map(|workload| workload.identity().to_string()),
        addresses: workload
            .map(|workload| workload.addresses.iter().map(ToString::to_string).collect())
            .unwrap_or_default(),
        waypoint: workload
            .and_then(|workload| workload.waypoint.as_ref())
            .map(|waypoint| waypoint.destination.to_string()),
        inbound,
        outbound,
    }
}
