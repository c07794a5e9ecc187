//! A mesh in a file: JSON, in the words of the agent's own mesh file, as far as tests need them here.
//!
//! Invariant: a word that is not understood is an error, never left out.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::Path;

use anyhow::{Context as _, Result};

use crate::build::{self, octets};
use crate::wire::security::{Authorization, Clause, Match, MatchKind, Rule, StringMatch};
use crate::wire::workload::{NetworkAddress, Port, PortList, Service, Workload};
use crate::world::World;

type Ports = BTreeMap<u32, u32>;

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    #[serde(default)]
    workloads: Vec<Entry>,
    #[serde(default)]
    services: Vec<ServiceEntry>,
    #[serde(default)]
    policies: Vec<PolicyEntry>,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
struct Entry {
    uid: String,
    name: String,
    namespace: String,
    service_account: String,
    workload_ips: Vec<IpAddr>,
    protocol: Protocol,
    node: String,
    workload_name: String,
    canonical_name: String,
    canonical_revision: String,
    #[serde(default)]
    services: BTreeMap<String, Ports>,
}

#[derive(serde::Deserialize)]
#[serde(rename_all = "UPPERCASE")]
enum Protocol {
    Tcp,
    Hbone,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct ServiceEntry {
    name: String,
    namespace: String,
    hostname: String,
    vips: Vec<String>,
    ports: Ports,
}

/// A policy of a namespace, which knows clients by their principals.
#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct PolicyEntry {
    name: String,
    namespace: String,
    scope: Scope,
    action: Action,
    rules: Vec<Vec<Vec<MatchEntry>>>,
}

#[derive(serde::Deserialize)]
enum Scope {
    Namespace,
}

#[derive(serde::Deserialize)]
enum Action {
    Allow,
    Deny,
}

#[derive(serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct MatchEntry {
    principals: Vec<Principal>,
}

#[derive(serde::Deserialize)]
enum Principal {
    Exact(String),
}

/// Puts the mesh of a file into a world, beside what is there.
///
/// # Errors
/// If it cannot be read or has words that are not understood here.
pub fn load(world: &mut World, path: &Path) -> Result<()> {
    let text = std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))?;
    let file: File = serde_json::from_str(&text).with_context(|| format!("understand {}", path.display()))?;
    for entry in file.workloads {
        world.set(workload(entry));
    }
    for entry in file.services {
        world.set(service(entry).with_context(|| format!("understand {}", path.display()))?);
    }
    for entry in file.policies {
        world.set(policy(entry));
    }
    Ok(())
}

fn workload(entry: Entry) -> Workload {
    let services = entry.services.into_iter().map(|(name, own)| (name, PortList { ports: ports(own) }));
    Workload {
        uid: entry.uid,
        service_account: entry.service_account,
        addresses: entry.workload_ips.into_iter().map(octets).collect(),
        tunnel_protocol: i32::from(matches!(entry.protocol, Protocol::Hbone)),
        node: entry.node,
        workload_name: entry.workload_name,
        canonical_name: entry.canonical_name,
        canonical_revision: entry.canonical_revision,
        services: services.collect(),
        ..build::workload(&entry.namespace, &entry.name)
    }
}

fn service(entry: ServiceEntry) -> Result<Service> {
    let address = |vip: &String| {
        let (network, address) = vip.split_once('/').context("an address is written network/address")?;
        let address = octets(address.parse().with_context(|| format!("address {vip}"))?);
        Ok(NetworkAddress { network: network.to_owned(), address, length: None })
    };
    Ok(Service {
        hostname: entry.hostname,
        addresses: entry.vips.iter().map(address).collect::<Result<_>>()?,
        ports: ports(entry.ports),
        ..build::service(&entry.namespace, &entry.name)
    })
}

fn policy(entry: PolicyEntry) -> Authorization {
    let principal = |Principal::Exact(name)| StringMatch { kind: Some(MatchKind::Exact(name)) };
    let of_match = |entry: MatchEntry| Match {
        principals: entry.principals.into_iter().map(principal).collect(),
        ..Match::default()
    };
    let clause = |matches: Vec<MatchEntry>| Clause { matches: matches.into_iter().map(of_match).collect() };
    let rule = |clauses: Vec<Vec<MatchEntry>>| Rule { clauses: clauses.into_iter().map(clause).collect() };
    let Scope::Namespace = entry.scope;
    Authorization {
        name: entry.name,
        namespace: entry.namespace,
        scope: 1,
        action: i32::from(matches!(entry.action, Action::Deny)),
        rules: entry.rules.into_iter().map(rule).collect(),
        ..Authorization::default()
    }
}

fn ports(ports: Ports) -> Vec<Port> {
    let port = |(service_port, target_port)| Port { service_port, target_port, app_protocol: 0 };
    ports.into_iter().map(port).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policies(scope: &str) -> serde_json::Result<Vec<Authorization>> {
        let text = format!(
            r#"{{"policies": [{{"name": "p", "namespace": "demo", "scope": "{scope}", "action": "Deny",
            "rules": [[[{{"principals": [{{"Exact": "cluster.local/ns/demo/sa/a"}}]}}]]]}}]}}"#
        );
        serde_json::from_str(&text).map(|file: File| file.policies.into_iter().map(policy).collect())
    }

    #[test]
    fn a_policy_is_read_whole_and_what_is_not_understood_is_refused() {
        let allowed = build::allow_from("demo", "p", "cluster.local/ns/demo/sa/a");
        assert_eq!(policies("Namespace").unwrap(), [Authorization { action: 1, ..allowed }]);
        assert!(policies("Galaxy").unwrap_err().to_string().contains("Galaxy"));
    }
}
