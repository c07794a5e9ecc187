//! Workloads, services and policies as a test wants them: a few words, and the rest by default.

use std::net::IpAddr;

use crate::wire::security::{Authorization, Clause, Match, MatchKind, Rule, StringMatch};
use crate::wire::workload::{NetworkAddress, Port, PortList, Service, Workload};

/// The cluster that uids begin with.
pub const CLUSTER: &str = "Kubernetes";

/// A pod that speaks HBONE, healthy, of the default account, without addresses.
pub fn workload(namespace: &str, name: &str) -> Workload {
    Workload {
        name: name.to_owned(),
        namespace: namespace.to_owned(),
        tunnel_protocol: 1,
        service_account: "default".to_owned(),
        workload_type: 2,
        workload_name: name.to_owned(),
        canonical_name: name.to_owned(),
        canonical_revision: "latest".to_owned(),
        cluster_id: CLUSTER.to_owned(),
        uid: uid(namespace, name),
        ..Workload::default()
    }
}

/// The uid of a pod.
pub fn uid(namespace: &str, name: &str) -> String {
    format!("{CLUSTER}//Pod/{namespace}/{name}")
}

impl Workload {
    /// With one more address.
    pub fn at(mut self, address: impl Into<IpAddr>) -> Self {
        self.addresses.push(octets(address.into()));
        self
    }

    /// On a node.
    pub fn on(mut self, node: &str) -> Self {
        node.clone_into(&mut self.node);
        self
    }

    /// Running as an account.
    pub fn running_as(mut self, account: &str) -> Self {
        account.clone_into(&mut self.service_account);
        self
    }

    /// An endpoint of a service.
    pub fn behind(mut self, service: &Service, port: u32, target_port: u32) -> Self {
        let ports = vec![Port { service_port: port, target_port, app_protocol: 0 }];
        self.services.insert(format!("{}/{}", service.namespace, service.hostname), PortList { ports });
        self
    }

    /// Under a policy that selects it.
    pub fn under(mut self, policy: &str) -> Self {
        self.authorization_policies.push(policy.to_owned());
        self
    }
}

/// A service of a namespace, without addresses and ports.
pub fn service(namespace: &str, name: &str) -> Service {
    Service {
        name: name.to_owned(),
        namespace: namespace.to_owned(),
        hostname: format!("{name}.{namespace}.svc.cluster.local"),
        canonical: true,
        ..Service::default()
    }
}

impl Service {
    /// With one more VIP.
    pub fn at(mut self, address: impl Into<IpAddr>) -> Self {
        let address = octets(address.into());
        self.addresses.push(NetworkAddress { network: String::new(), address, length: None });
        self
    }

    /// With one more port.
    pub fn port(mut self, service_port: u32, target_port: u32) -> Self {
        self.ports.push(Port { service_port, target_port, app_protocol: 0 });
        self
    }
}

/// A policy of a namespace that allows what comes from one identity (`domain/ns/…/sa/…`).
pub fn allow_from(namespace: &str, name: &str, principal: &str) -> Authorization {
    let principal = StringMatch { kind: Some(MatchKind::Exact(principal.to_owned())) };
    let matches = vec![Match { principals: vec![principal], ..Match::default() }];
    Authorization {
        name: name.to_owned(),
        namespace: namespace.to_owned(),
        scope: 1,
        rules: vec![Rule { clauses: vec![Clause { matches }] }],
        ..Authorization::default()
    }
}

/// An address as the wire has it.
pub fn octets(address: IpAddr) -> Vec<u8> {
    match address {
        IpAddr::V4(address) => address.octets().to_vec(),
        IpAddr::V6(address) => address.octets().to_vec(),
    }
}
