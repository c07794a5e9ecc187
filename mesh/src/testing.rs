//! Short ways to write resources in tests.

use std::collections::HashSet;
use std::fmt::Debug;
use std::net::{IpAddr, SocketAddr};

use crate::address::NamespacedHostname;
use crate::policy::Policy;
use crate::service::Service;
use crate::snapshot::Snapshot;
use crate::workload::{GatewayAddress, GatewayDestination, PortMap, Protocol, Workload};

/// Compares what each row of a table comes to with what it expects, and fails with the names of all that differ.
/// `judge` returns both, the outcome first. No two rows have one name.
#[track_caller]
pub(crate) fn check<'a, Row, Outcome: PartialEq + Debug>(
    rows: &'a [Row],
    name: impl Fn(&'a Row) -> &'a str,
    judge: impl Fn(&'a Row) -> (Outcome, Outcome),
) {
    let mut names = HashSet::new();
    let mut wrong = String::new();
    for row in rows {
        let name = name(row);
        assert!(names.insert(name), "two rows are named `{name}`");
        let (outcome, expected) = judge(row);
        if outcome != expected {
            wrong += &format!("\n  {name}:\n    is       {outcome:?}\n    and not  {expected:?}");
        }
    }
    assert!(wrong.is_empty(), "rows that differ:{wrong}");
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().unwrap()
}

pub(crate) fn socket(text: &str) -> SocketAddr {
    text.parse().unwrap()
}

pub(crate) fn ports<const N: usize>(ports: [(u16, u16); N]) -> PortMap {
    PortMap::from(ports)
}

/// An HBONE pod of namespace `default`, account of the same name.
pub(crate) fn pod(name: &str, addresses: &[&str]) -> Workload {
    Workload {
        uid: format!("Kubernetes//Pod/default/{name}").into(),
        name: name.into(),
        namespace: "default".into(),
        service_account: name.into(),
        addresses: addresses.iter().map(|address| ip(address)).collect(),
        protocol: Protocol::Hbone,
        ..Workload::default()
    }
}

pub(crate) fn tcp_pod(name: &str, addresses: &[&str]) -> Workload {
    Workload { protocol: Protocol::Tcp, ..pod(name, addresses) }
}

/// The key of a service of namespace `default`.
pub(crate) fn key(name: &str) -> NamespacedHostname {
    NamespacedHostname::new("default", format!("{name}.example"))
}

/// A service of namespace `default` with port 80 to 8080.
pub(crate) fn service(name: &str, vips: &[&str]) -> Service {
    Service {
        name: name.into(),
        namespace: "default".into(),
        hostname: key(name).hostname,
        vips: vips.iter().map(|vip| vip.parse().unwrap()).collect(),
        ports: ports([(80, 8080)]),
        ..Service::default()
    }
}

impl Workload {
    /// Serves a service of namespace `default`.
    pub(crate) fn serving<const N: usize>(mut self, name: &str, map: [(u16, u16); N]) -> Self {
        self.services.insert(key(name), ports(map));
        self
    }
}

pub(crate) fn gateway_by_host(name: &str) -> GatewayAddress {
    GatewayAddress { destination: GatewayDestination::Hostname(key(name)), hbone_mtls_port: 15008 }
}

pub(crate) fn gateway_by_address(address: &str) -> GatewayAddress {
    GatewayAddress {
        destination: GatewayDestination::Address(address.parse().unwrap()),
        hbone_mtls_port: 15008,
    }
}

pub(crate) fn snapshot(
    workloads: impl IntoIterator<Item = Workload>,
    services: impl IntoIterator<Item = Service>,
    policies: impl IntoIterator<Item = Policy>,
) -> Snapshot {
    let mut editor = Snapshot::default().edit();
    workloads.into_iter().for_each(|workload| editor.insert_workload(workload));
    services.into_iter().for_each(|service| editor.insert_service(service));
    policies.into_iter().for_each(|policy| editor.insert_policy(policy));
    editor.finish()
}
