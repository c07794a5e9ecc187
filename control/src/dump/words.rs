//! How single values are spelled: the counterpart of what the file source reads.

use std::fmt::Display;

use mesh::policy;
use mesh::service::{HealthPolicy, IpFamilies, LoadBalancerMode, Scope, Visibility};
use mesh::workload::{
    GatewayAddress, GatewayDestination, Health, NetworkMode, PortMap, Protocol, TunnelProtocol, WorkloadType,
};
use serde::{Serialize, Serializer};

/// A value that is shown as text.
pub(super) struct Text<T>(pub(super) T);

impl<T: Display> Serialize for Text<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(&self.0)
    }
}

/// Ports as an object.
pub(super) struct Ports<'a>(pub(super) &'a PortMap);

impl Serialize for Ports<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter())
    }
}

/// A waypoint or a network gateway.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct GatewayView<'a> {
    destination: Text<&'a GatewayDestination>,
    hbone_mtls_port: u16,
}

impl<'a> From<&'a GatewayAddress> for GatewayView<'a> {
    fn from(gateway: &'a GatewayAddress) -> Self {
        Self { destination: Text(&gateway.destination), hbone_mtls_port: gateway.hbone_mtls_port }
    }
}

pub(super) const fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "TCP",
        Protocol::Hbone => "HBONE",
    }
}

pub(super) const fn network_mode(mode: NetworkMode) -> &'static str {
    match mode {
        NetworkMode::Standard => "Standard",
        NetworkMode::HostNetwork => "HostNetwork",
    }
}

pub(super) const fn workload_type(of: WorkloadType) -> &'static str {
    match of {
        WorkloadType::Deployment => "deployment",
        WorkloadType::CronJob => "cronjob",
        WorkloadType::Pod => "pod",
        WorkloadType::Job => "job",
    }
}

pub(super) const fn health(health: Health) -> &'static str {
    match health {
        Health::Healthy => "Healthy",
        Health::Unhealthy => "Unhealthy",
    }
}

pub(super) const fn tunnel_protocol(protocol: TunnelProtocol) -> &'static str {
    match protocol {
        TunnelProtocol::None => "NONE",
        TunnelProtocol::Proxy => "PROXY",
    }
}

pub(super) const fn scope(scope: Scope) -> &'static str {
    match scope {
        Scope::Region => "Region",
        Scope::Zone => "Zone",
        Scope::Subzone => "Subzone",
        Scope::Node => "Node",
        Scope::Cluster => "Cluster",
        Scope::Network => "Network",
    }
}

pub(super) const fn mode(mode: LoadBalancerMode) -> &'static str {
    match mode {
        LoadBalancerMode::Standard => "Standard",
        LoadBalancerMode::Strict => "Strict",
        LoadBalancerMode::Failover => "Failover",
        LoadBalancerMode::Passthrough => "Passthrough",
    }
}

pub(super) const fn health_policy(policy: HealthPolicy) -> &'static str {
    match policy {
        HealthPolicy::OnlyHealthy => "OnlyHealthy",
        HealthPolicy::AllowAll => "AllowAll",
    }
}

/// Nothing is said of a service that leaves it to its clients.
pub(super) const fn ip_families(families: IpFamilies) -> Option<&'static str> {
    match families {
        IpFamilies::Automatic => None,
        IpFamilies::Ipv4Only => Some("IPv4"),
        IpFamilies::Ipv6Only => Some("IPv6"),
        IpFamilies::Dual => Some("Dual"),
    }
}

pub(super) const fn visibility(visibility: Visibility) -> &'static str {
    match visibility {
        Visibility::Public => "Public",
        Visibility::Namespace => "Namespace",
    }
}

pub(super) const fn policy_scope(scope: policy::Scope) -> &'static str {
    match scope {
        policy::Scope::Global => "Global",
        policy::Scope::Namespace => "Namespace",
        policy::Scope::WorkloadSelector => "WorkloadSelector",
    }
}

pub(super) const fn action(action: policy::Action) -> &'static str {
    match action {
        policy::Action::Allow => "Allow",
        policy::Action::Deny => "Deny",
    }
}
