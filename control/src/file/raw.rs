//! A mesh file as it is written, field by field.
//!
//! Invariant: a field that is not known here is an error, so a slip of the pen in a policy cannot widen it.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use ipnet::IpNet;
use mesh::service::{HealthPolicy, IpFamilies, LoadBalancerMode, Scope, Visibility};
use mesh::workload::{
    GatewayDestination, Health, NetworkMode, PortMap, Protocol, TunnelProtocol, Workload, WorkloadType,
};
use mesh::{NamespacedHostname, NetworkAddress, SortedMap, policy};
use serde::Deserialize;
use serde::de::IgnoredAny;
use serde_saphyr::{Location, Spanned};

use super::texts;
use super::words::{As, Name, Port, SubjectAltName, TargetPort, Text};

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct RawFile {
    #[serde(deserialize_with = "listed")]
    pub(super) workloads: Vec<Item>,
    #[serde(deserialize_with = "listed")]
    pub(super) services: Vec<Spanned<RawService>>,
    #[serde(deserialize_with = "listed")]
    pub(super) policies: Vec<Spanned<RawPolicy>>,
    #[serde(alias = "enrol", deserialize_with = "listed")]
    pub(super) enroll: Vec<Spanned<RawEnrollment>>,
    pub(super) ca: Option<RawCa>,
    pub(super) trust_domain: Option<As<Name>>,
    /// What a whole `/config_dump` has besides. It tells of the agent that wrote it, not of the mesh.
    #[serde(rename = "certificates")]
    _certificates: IgnoredAny,
    #[serde(rename = "config")]
    _config: IgnoredAny,
    #[serde(rename = "version")]
    _version: IgnoredAny,
    #[serde(rename = "workloadState")]
    _workload_state: IgnoredAny,
    /// Endpoints are what their workloads say they serve, so these are there twice.
    #[serde(rename = "stagedServices")]
    _staged_services: IgnoredAny,
    /// These are among the resources above.
    #[serde(rename = "staticConfig")]
    _static_config: IgnoredAny,
}

impl RawFile {
    /// Whether nothing else is in it.
    pub(super) fn is_list_of_workloads(&self) -> bool {
        let resources = self.services.is_empty() && self.policies.is_empty() && self.enroll.is_empty();
        resources && self.ca.is_none() && self.trust_domain.is_none()
    }
}

/// A workload, and where it stands. What is written becomes what is meant at once: of a large mesh only the one is kept.
#[derive(Debug)]
pub(super) struct Item {
    pub(super) place: Location,
    pub(super) workload: Workload,
}

impl<'de> Deserialize<'de> for Item {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let raw: Spanned<RawWorkload> = Spanned::deserialize(deserializer)?;
        Ok(Self { place: raw.referenced, workload: super::parse::workload(raw.value) })
    }
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawWorkload {
    pub(super) uid: Option<Arc<str>>,
    pub(super) name: As<Name>,
    pub(super) namespace: As<Name>,
    pub(super) trust_domain: Option<As<Name>>,
    pub(super) service_account: Option<As<Name>>,
    pub(super) network: Option<As<Text>>,
    #[serde(default)]
    pub(super) workload_ips: Vec<As<IpAddr>>,
    #[serde(default)]
    pub(super) protocol: As<Protocol>,
    #[serde(default)]
    pub(super) network_mode: As<NetworkMode>,
    pub(super) waypoint: Option<RawGateway>,
    pub(super) network_gateway: Option<RawGateway>,
    pub(super) node: Option<As<Text>>,
    pub(super) canonical_name: Option<As<Text>>,
    pub(super) canonical_revision: Option<As<Text>>,
    #[serde(default)]
    pub(super) workload_type: As<WorkloadType>,
    pub(super) workload_name: Option<As<Text>>,
    /// Dumps have it; nothing follows from it here.
    #[serde(default, rename = "nativeTunnel")]
    _native_tunnel: IgnoredAny,
    #[serde(default)]
    pub(super) authorization_policies: Vec<As<PolicyKey>>,
    #[serde(default)]
    pub(super) status: As<Health>,
    pub(super) cluster_id: Option<As<Name>>,
    pub(super) hostname: Option<As<Text>>,
    pub(super) application_tunnel: Option<RawTunnel>,
    #[serde(default)]
    pub(super) locality: RawLocality,
    pub(super) capacity: Option<u32>,
    #[serde(default)]
    pub(super) services: Served,
}

/// The key of a policy, `namespace/name`.
#[derive(Clone, Debug)]
pub(super) struct PolicyKey(pub(super) Arc<str>);

impl super::words::Word for PolicyKey {
    const EXPECTED: &'static str = "a policy, NAMESPACE/NAME";

    fn read(text: &str) -> Option<Self> {
        text.parse::<NamespacedHostname>().ok().map(|_| Self(texts::text(text)))
    }
}

/// Ports, and what they lead to.
#[derive(Debug, Default)]
pub(super) struct Ports(pub(super) PortMap);

/// The services a workload serves: with ports, or by name alone, as `/config_dump` has them.
#[derive(Debug, Default)]
pub(super) struct Served(pub(super) SortedMap<NamespacedHostname, PortMap>);

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawGateway {
    pub(super) destination: As<GatewayDestination>,
    pub(super) hbone_mtls_port: Option<As<Port>>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawWeightedWaypoint {
    pub(super) destination: As<GatewayDestination>,
    pub(super) hbone_mtls_port: Option<As<Port>>,
    pub(super) weight: u32,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawTunnel {
    #[serde(default)]
    pub(super) protocol: As<TunnelProtocol>,
    pub(super) port: Option<As<Port>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct RawLocality {
    pub(super) region: As<Text>,
    pub(super) zone: As<Text>,
    pub(super) subzone: As<Text>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawService {
    pub(super) name: Arc<str>,
    pub(super) namespace: As<Name>,
    pub(super) hostname: As<Name>,
    #[serde(default)]
    pub(super) vips: Vec<As<NetworkAddress>>,
    #[serde(default)]
    pub(super) cidr_vips: Vec<RawCidr>,
    #[serde(default)]
    pub(super) ports: Ports,
    #[serde(default)]
    pub(super) endpoints: BTreeMap<Arc<str>, RawEndpoint>,
    #[serde(default)]
    pub(super) subject_alt_names: Vec<As<SubjectAltName>>,
    pub(super) waypoint: Option<RawGateway>,
    #[serde(default)]
    pub(super) weighted_waypoints: Vec<RawWeightedWaypoint>,
    #[serde(default)]
    pub(super) load_balancer: Option<RawLoadBalancer>,
    #[serde(default)]
    pub(super) ip_families: As<IpFamilies>,
    #[serde(default)]
    pub(super) canonical: bool,
    #[serde(default)]
    pub(super) visibility: As<Visibility>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawCidr {
    #[serde(default)]
    pub(super) network: Arc<str>,
    pub(super) cidr: As<IpNet>,
}

/// An endpoint as a service of `/config_dump` lists it. Its health is the workload's to tell.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawEndpoint {
    pub(super) workload_uid: Option<Arc<str>>,
    #[serde(default)]
    pub(super) port: Ports,
    #[serde(default, rename = "status")]
    _status: As<Health>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawLoadBalancer {
    #[serde(default)]
    pub(super) mode: As<LoadBalancerMode>,
    #[serde(default)]
    pub(super) routing_preferences: Vec<As<Scope>>,
    #[serde(default)]
    pub(super) health_policy: As<HealthPolicy>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawPolicy {
    pub(super) name: As<Name>,
    pub(super) namespace: As<Name>,
    pub(super) scope: As<policy::Scope>,
    pub(super) action: As<policy::Action>,
    #[serde(default)]
    pub(super) dry_run: bool,
    /// Rules of clauses of matches.
    #[serde(default)]
    pub(super) rules: Vec<Vec<Vec<RawMatch>>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub(super) struct RawMatch {
    #[serde(deserialize_with = "filled")]
    pub(super) namespaces: Vec<RawString>,
    #[serde(deserialize_with = "filled")]
    pub(super) not_namespaces: Vec<RawString>,
    #[serde(deserialize_with = "filled")]
    pub(super) service_accounts: Vec<RawAccount>,
    #[serde(deserialize_with = "filled")]
    pub(super) not_service_accounts: Vec<RawAccount>,
    #[serde(deserialize_with = "filled")]
    pub(super) principals: Vec<RawString>,
    #[serde(deserialize_with = "filled")]
    pub(super) not_principals: Vec<RawString>,
    #[serde(deserialize_with = "filled")]
    pub(super) source_ips: Vec<As<IpNet>>,
    #[serde(deserialize_with = "filled")]
    pub(super) not_source_ips: Vec<As<IpNet>>,
    #[serde(deserialize_with = "filled")]
    pub(super) destination_ips: Vec<As<IpNet>>,
    #[serde(deserialize_with = "filled")]
    pub(super) not_destination_ips: Vec<As<IpNet>>,
    #[serde(deserialize_with = "filled")]
    pub(super) destination_ports: Vec<As<Port>>,
    #[serde(deserialize_with = "filled")]
    pub(super) not_destination_ports: Vec<As<Port>>,
}

#[derive(Debug, Deserialize)]
pub(super) enum RawString {
    Exact(Arc<str>),
    Prefix(Arc<str>),
    Suffix(Arc<str>),
    /// Its value says nothing; it is written `[]`.
    Presence(IgnoredAny),
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawAccount {
    pub(super) namespace: As<Name>,
    #[serde(alias = "name")]
    pub(super) service_account: As<Name>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawEnrollment {
    pub(super) name: As<Name>,
    pub(super) namespace: As<Name>,
    pub(super) service_account: Option<As<Name>>,
    pub(super) netns: Option<PathBuf>,
    pub(super) container: Option<String>,
    #[serde(default)]
    pub(super) annotations: BTreeMap<String, String>,
}

#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub(super) struct RawCa {
    pub(super) dir: PathBuf,
    pub(super) ttl: Option<As<Duration>>,
}

/// A list of the file, which may be empty if it says so. A key with nothing after it is what is left of a file that was
/// cut short there.
fn listed<'de, D: serde::Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    let missing = || serde::de::Error::custom("the list is missing; write `[]` if it is to be empty");
    Option::deserialize(deserializer)?.ok_or_else(missing)
}

/// A list of values to match, which must not be empty: what is left empty by mistake would match everything.
fn filled<'de, D: serde::Deserializer<'de>, T: Deserialize<'de>>(
    deserializer: D,
) -> Result<Vec<T>, D::Error> {
    let values: Vec<T> = Option::deserialize(deserializer)?.unwrap_or_default();
    if values.is_empty() {
        let message = "this list is empty and would not restrict anything: leave it out, or fill it";
        return Err(serde::de::Error::custom(message));
    }
    Ok(values)
}

impl<'de> Deserialize<'de> for Ports {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(PortsVisitor)
    }
}

struct PortsVisitor;

impl<'de> serde::de::Visitor<'de> for PortsVisitor {
    type Value = Ports;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("ports and what they lead to, such as {80: 8080}")
    }

    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Ports, A::Error> {
        let mut ports = Vec::new();
        while let Some((As(Port(port)), As(TargetPort(target)))) = map.next_entry()? {
            ports.push((port, target));
        }
        Ok(Ports(ports.into_iter().collect()))
    }
}

impl<'de> Deserialize<'de> for Served {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ServedVisitor)
    }
}

struct ServedVisitor;

impl<'de> serde::de::Visitor<'de> for ServedVisitor {
    type Value = Served;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("services with their ports, NAMESPACE/HOSTNAME: {80: 8080}, or a list of them")
    }

    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Served, A::Error> {
        let mut served = Vec::new();
        while let Some((As(key), Ports(ports))) = map.next_entry()? {
            served.push((key, ports));
        }
        Ok(Served(served.into_iter().collect()))
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut list: A) -> Result<Served, A::Error> {
        let mut served = Vec::new();
        while let Some(As(key)) = list.next_element()? {
            served.push((key, PortMap::new()));
        }
        Ok(Served(served.into_iter().collect()))
    }
}
