//! Workloads.

use std::sync::Arc;

use mesh::Workload;
use mesh::workload::{
    ApplicationTunnel, Health, Locality, NetworkMode, Protocol, TunnelProtocol, WorkloadType,
};

use super::Fault;
use super::place::{gateway, ip, port, ports};
use super::text::{key, name, name_or, text};
use crate::proto::workload::application_tunnel::Protocol as TunnelWord;
use crate::proto::workload::{
    self as wire, NetworkMode as NetworkWord, TunnelProtocol as ProtocolWord, WorkloadStatus,
    WorkloadType as TypeWord,
};

/// What an absent field means.
const TRUST_DOMAIN: &str = "cluster.local";
const SERVICE_ACCOUNT: &str = "default";
const CLUSTER: &str = "Kubernetes";
const CAPACITY: u32 = 1;

pub(super) fn workload(wire: wire::Workload) -> Result<Workload, Fault> {
    if wire.uid.is_empty() {
        return Err(Fault::new("uid", "it is empty"));
    }
    let addresses = wire.addresses.iter().map(|bytes| ip("addresses", bytes));
    let policies = wire.authorization_policies.iter().map(|policy| {
        key("authorization_policies", policy)?;
        Ok(text(policy))
    });
    let services = wire.services.iter();
    let services =
        services.map(|(service, list)| Ok((key("services", service)?, ports("services", &list.ports)?)));
    Ok(Workload {
        uid: text(&wire.uid),
        name: text(&wire.name),
        namespace: name("namespace", &wire.namespace)?,
        trust_domain: name_or("trust_domain", &wire.trust_domain, TRUST_DOMAIN)?,
        service_account: name_or("service_account", &wire.service_account, SERVICE_ACCOUNT)?,
        network: text(&wire.network),
        addresses: addresses.collect::<Result<_, _>>()?,
        protocol: protocol(wire.tunnel_protocol)?,
        network_mode: network_mode(wire.network_mode)?,
        waypoint: wire.waypoint.as_ref().map(|wire| gateway("waypoint", wire).map(Arc::new)).transpose()?,
        network_gateway: wire
            .network_gateway
            .as_ref()
            .map(|wire| gateway("network_gateway", wire).map(Arc::new))
            .transpose()?,
        node: text(&wire.node),
        canonical_name: text(&wire.canonical_name),
        canonical_revision: text(&wire.canonical_revision),
        workload_type: workload_type(wire.workload_type)?,
        workload_name: text(&wire.workload_name),
        authorization_policies: policies.collect::<Result<Vec<Arc<str>>, _>>()?,
        status: status(wire.status)?,
        cluster_id: name_or("cluster_id", &wire.cluster_id, CLUSTER)?,
        hostname: text(&wire.hostname),
        application_tunnel: wire.application_tunnel.as_ref().map(tunnel).transpose()?,
        locality: Arc::new(locality(wire.locality.as_ref())),
        capacity: wire.capacity.unwrap_or(CAPACITY),
        services: services.collect::<Result<_, _>>()?,
    })
}

fn protocol(value: i32) -> Result<Protocol, Fault> {
    match ProtocolWord::try_from(value) {
        Ok(ProtocolWord::None) => Ok(Protocol::Tcp),
        Ok(ProtocolWord::Hbone) => Ok(Protocol::Hbone),
        Ok(ProtocolWord::LegacyIstioMtls) => {
            Err(Fault::new("tunnel_protocol", "LEGACY_ISTIO_MTLS is not spoken here"))
        }
        Err(_) => Err(Fault::unknown("tunnel_protocol", value)),
    }
}

fn network_mode(value: i32) -> Result<NetworkMode, Fault> {
    match NetworkWord::try_from(value) {
        Ok(NetworkWord::Standard) => Ok(NetworkMode::Standard),
        Ok(NetworkWord::HostNetwork) => Ok(NetworkMode::HostNetwork),
        Err(_) => Err(Fault::unknown("network_mode", value)),
    }
}

fn workload_type(value: i32) -> Result<WorkloadType, Fault> {
    match TypeWord::try_from(value) {
        Ok(TypeWord::Deployment) => Ok(WorkloadType::Deployment),
        Ok(TypeWord::Cronjob) => Ok(WorkloadType::CronJob),
        Ok(TypeWord::Pod) => Ok(WorkloadType::Pod),
        Ok(TypeWord::Job) => Ok(WorkloadType::Job),
        Err(_) => Err(Fault::unknown("workload_type", value)),
    }
}

fn status(value: i32) -> Result<Health, Fault> {
    match WorkloadStatus::try_from(value) {
        Ok(WorkloadStatus::Healthy) => Ok(Health::Healthy),
        Ok(WorkloadStatus::Unhealthy) => Ok(Health::Unhealthy),
        Err(_) => Err(Fault::unknown("status", value)),
    }
}

fn tunnel(wire: &wire::ApplicationTunnel) -> Result<ApplicationTunnel, Fault> {
    let protocol = match TunnelWord::try_from(wire.protocol) {
        Ok(TunnelWord::None) => TunnelProtocol::None,
        Ok(TunnelWord::Proxy) => TunnelProtocol::Proxy,
        Err(_) => return Err(Fault::unknown("application_tunnel", wire.protocol)),
    };
    let port = if wire.port == 0 { None } else { Some(port("application_tunnel", wire.port)?) };
    Ok(ApplicationTunnel { protocol, port })
}

fn locality(wire: Option<&wire::Locality>) -> Locality {
    wire.map_or_else(Locality::default, |wire| Locality {
        region: text(&wire.region),
        zone: text(&wire.zone),
        subzone: text(&wire.subzone),
    })
}
