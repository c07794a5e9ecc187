//! This node's pods as they are shown: whether each is served, and what connections it has.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use mesh::{Snapshot, Workload};
use serde::{Serialize, Serializer};
use tunnel::{ConnectionInfo, Direction};

use crate::enrollment::{PodKey, PodState};

/// A pod in the words of `/config_dump`.
#[derive(Serialize)]
pub(super) struct PodView {
    state: &'static str,
    connections: ConnectionsView,
    #[serde(skip_serializing_if = "Option::is_none")]
    info: Option<InfoView>,
}

#[derive(Default, Serialize)]
struct ConnectionsView {
    inbound: Vec<ConnectionView>,
    outbound: Vec<ConnectionView>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct InfoView {
    name: String,
    namespace: String,
    service_account: String,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct ConnectionView {
    #[serde(serialize_with = "text")]
    src: SocketAddr,
    /// As the application addressed it; nothing of what arrives.
    original_dst: Option<SocketAddr>,
    /// The next hop, or the application.
    #[serde(serialize_with = "text")]
    actual_dst: SocketAddr,
    protocol: &'static str,
}

fn text<S: Serializer>(address: &SocketAddr, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(address)
}

/// Shows the pods by the uids of their workloads; a pod whose workload has not come, by `namespace/name`.
pub(super) fn views(
    snapshot: &Snapshot,
    pods: Vec<(PodKey, PodState)>,
    connections: &[ConnectionInfo],
) -> BTreeMap<String, PodView> {
    let mut views: BTreeMap<String, PodView> = BTreeMap::new();
    for (pod, state) in pods {
        let workload = snapshot.workload_of_pod(&pod.namespace, &pod.name);
        let key = workload.map_or_else(|| pod.to_string(), |workload| workload.uid.to_string());
        let info = InfoView {
            service_account: workload
                .map_or_else(String::new, |workload| workload.service_account.to_string()),
            name: pod.name,
            namespace: pod.namespace,
        };
        // A pod of which a part of capture is lost is served all the same.
        let state = match state {
            PodState::Pending(_) => "Pending",
            PodState::Enrolled | PodState::Degraded(_) => "Up",
        };
        views.insert(key, PodView { state, connections: ConnectionsView::default(), info: Some(info) });
    }
    for connection in connections {
        let uid = &*connection.workload;
        // Connections of a pod that was released live on for a while.
        let pod = views.entry(uid.to_owned()).or_insert_with(|| PodView {
            state: "Up",
            connections: ConnectionsView::default(),
            info: snapshot.workload(uid).map(|workload| info(workload)),
        });
        let view = ConnectionView::from(connection);
        match connection.direction {
            Direction::Inbound => pod.connections.inbound.push(view),
            Direction::Outbound => pod.connections.outbound.push(view),
        }
    }
    views
}

fn info(workload: &Workload) -> InfoView {
    InfoView {
        name: workload.name.to_string(),
        namespace: workload.namespace.to_string(),
        service_account: workload.service_account.to_string(),
    }
}

impl From<&ConnectionInfo> for ConnectionView {
    fn from(connection: &ConnectionInfo) -> Self {
        Self {
            src: connection.source,
            original_dst: connection.original_destination,
            actual_dst: connection.destination,
            protocol: if connection.hbone { "HBONE" } else { "TCP" },
        }
    }
}
