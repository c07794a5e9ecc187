//! The connections that there are now, one by one.
//!
//! A node may have more of them than anybody reads: those of the lowest ports and addresses are told, the rest is counted.

use std::io;
use std::net::SocketAddr;

use mesh::{Place, Snapshot};
use serde::{Deserialize, Serialize};
use tunnel::{ConnectionInfo, Direction};

use super::protocol::Answer;
use super::{Subjects, Teller};

/// Connections that are told of at once.
const MAX_ROWS: usize = 10_000;

/// A connection.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct ConnectionRow {
    /// `namespace/name` of the pod, or the uid of a workload that the mesh does not know any more.
    pub(crate) pod: String,
    /// `inbound` or `outbound`, seen from the pod.
    pub(crate) direction: String,
    /// The client's address.
    pub(crate) source: SocketAddr,
    /// What the pod addressed; outbound only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) original_destination: Option<SocketAddr>,
    /// Where it goes: the next hop, or the application.
    pub(crate) destination: SocketAddr,
    /// Whether it is carried in a tunnel of mutual TLS.
    pub(crate) mutual_tls: bool,
    /// Who the client has proven to be; inbound tunnels only.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) identity: Option<String>,
    /// The workload at the other end's address, `namespace/name`, if the mesh knows one; proven by nothing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) peer: Option<String>,
}

/// Tells of those of the pods of a name, or of all.
pub(super) fn tell(subjects: &Subjects, only: Option<&str>, send: &mut Teller<'_>) -> io::Result<()> {
    let snapshot = subjects.store.load();
    let connections = subjects.node.connections();
    let rows = connections.iter().map(|connection| row(&snapshot, subjects.tunnel.network(), connection));
    let is_called = |pod: &str, name: &str| {
        pod == name || pod.rsplit_once('/').is_some_and(|(_, short)| !name.contains('/') && short == name)
    };
    let mut rows: Vec<ConnectionRow> =
        rows.filter(|row| only.is_none_or(|only| is_called(&row.pod, only))).collect();
    rows.sort_unstable();
    let count = rows.len().saturating_sub(MAX_ROWS);
    for row in rows.into_iter().take(MAX_ROWS) {
        send(Answer::Connection(row))?;
    }
    if count > 0 { send(Answer::LeftOut { count }) } else { Ok(()) }
}

fn row(snapshot: &Snapshot, network: &str, connection: &ConnectionInfo) -> ConnectionRow {
    let workload = snapshot.workload(&connection.workload);
    let (direction, far) = match connection.direction {
        Direction::Inbound => ("inbound", connection.source),
        Direction::Outbound => ("outbound", connection.destination),
    };
    let peer = snapshot.workload_by_address(Place::new(network, far.ip()));
    let name =
        |workload: &std::sync::Arc<mesh::Workload>| format!("{}/{}", workload.namespace, workload.name);
    ConnectionRow {
        pod: workload.map_or_else(|| connection.workload.to_string(), name),
        direction: direction.to_owned(),
        source: connection.source,
        original_destination: connection.original_destination,
        destination: connection.destination,
        mutual_tls: connection.hbone,
        identity: connection.identity.as_ref().map(ToString::to_string),
        peer: peer.map(name),
    }
}
