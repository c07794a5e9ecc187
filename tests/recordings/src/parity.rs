//! What became of each connection under the peer: the world, and its rows.

use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use anyhow::{Context as _, Result};
use serde::Deserialize;
use serde_json::{Map, Value};

/// The recorded network.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct World {
    /// The nodes, by name.
    pub nodes: BTreeMap<String, Node>,
    /// The pods, by the name that rows have for them.
    pub pods: BTreeMap<String, Pod>,
    /// One host beyond both nodes.
    pub outside: Outside,
    /// What listens where.
    pub servers: Servers,
    /// What the waypoint does.
    pub waypoint: String,
}

/// A node.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Node {
    /// Its address.
    pub ip: Ipv4Addr,
    /// Its other one.
    pub ip6: Ipv6Addr,
}

/// A pod.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pod {
    /// Its name in the cluster.
    pub name: String,
    /// Its namespace there.
    pub namespace: String,
    /// Its node.
    pub node: String,
    /// Its address.
    pub ip: Ipv4Addr,
    /// Its other one; not every pod has it.
    pub ip6: Option<Ipv6Addr>,
    /// Its account.
    pub service_account: String,
    /// Whether it is in the mesh.
    pub captured: bool,
}

/// The host outside.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outside {
    /// Its addresses.
    pub addresses: Vec<IpAddr>,
    /// What it is.
    pub note: String,
}

/// The servers of every place.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Servers {
    /// Their ports.
    pub ports: Vec<u16>,
    /// What they do, by port.
    pub behaviour: BTreeMap<String, String>,
    /// Where they are.
    #[serde(rename = "where")]
    pub places: String,
}

/// One connection, or a few.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Row {
    /// The file that it is of.
    pub group: String,
    /// What it shows.
    pub about: String,
    /// Who connects.
    pub from: String,
    /// Where to: `address:port`.
    pub to: String,
    /// How it went for the client.
    pub results: Vec<Value>,
    /// How many responses the control plane had sent when the connection was opened.
    pub xds_before: usize,
    /// How many when the row ended.
    pub xds_messages: usize,
    /// The lines of both nodes; none if they are not compared.
    pub access_log: Option<Vec<Map<String, Value>>>,
    /// The series that moved; none if they are not compared.
    pub metrics: Option<Vec<Moved>>,
}

/// A series that moved.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Moved {
    /// The last letter of its node's name.
    pub node: String,
    /// The series.
    pub series: String,
    /// By how much.
    pub plus: f64,
}

/// The world.
pub fn world() -> Result<World> {
    serde_json::from_str(&crate::text("parity/world.json")?).context("understand the world")
}

/// Pods, virtual addresses, both families, odd ports, the outside.
pub fn routing() -> Result<Vec<Row>> {
    crate::lines("parity/routing.jsonl")
}

/// Policies of every shape, each from five clients on two ports.
pub fn policy() -> Result<Vec<Row>> {
    crate::lines("parity/policy.jsonl")
}

/// What a change does to a connection that is open.
pub fn live() -> Result<Vec<Row>> {
    crate::lines("parity/live.jsonl")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_is_read_and_its_control_plane_has_said_as_much_as_it_names() {
        for (rows, conversation) in [(routing(), "routing"), (policy(), "policy"), (live(), "live")] {
            let said = crate::conversation(&format!("parity/{conversation}_xds")).unwrap();
            let responses = said.iter().filter(|line| line.received.is_some()).count();
            for row in rows.unwrap() {
                assert!(row.xds_before <= row.xds_messages && row.xds_messages <= responses, "{row:?}");
            }
            assert!(
                said.iter()
                    .all(|line| line.raw.is_empty() != (line.sent.is_some() || line.received.is_some()))
            );
        }
        assert_eq!(world().unwrap().pods.len(), 11);
    }
}
