//! A workload as it is shown.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use mesh::Workload;
use mesh::workload::{ApplicationTunnel, Locality};
use serde::Serialize;

use super::Form;
use super::words::{self, GatewayView, Ports};

/// A workload in the words of `/config_dump`. What is empty is left out, but for addresses.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct WorkloadView<'a> {
    uid: &'a str,
    workload_ips: &'a [IpAddr],
    #[serde(skip_serializing_if = "Option::is_none")]
    waypoint: Option<GatewayView<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    network_gateway: Option<GatewayView<'a>>,
    protocol: &'static str,
    network_mode: &'static str,
    name: &'a str,
    namespace: &'a str,
    trust_domain: &'a str,
    service_account: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    network: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    workload_name: &'a str,
    workload_type: &'static str,
    #[serde(skip_serializing_if = "str::is_empty")]
    canonical_name: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    canonical_revision: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    hostname: &'a str,
    #[serde(skip_serializing_if = "str::is_empty")]
    node: &'a str,
    #[serde(skip_serializing_if = "<[_]>::is_empty")]
    authorization_policies: &'a [Arc<str>],
    status: &'static str,
    cluster_id: &'a str,
    #[serde(skip_serializing_if = "Option::is_none")]
    locality: Option<LocalityView<'a>>,
    #[serde(skip_serializing_if = "Served::is_left_out")]
    services: Served<'a>,
    capacity: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    application_tunnel: Option<TunnelView>,
}

#[derive(Serialize)]
struct LocalityView<'a> {
    region: &'a str,
    zone: &'a str,
    subzone: &'a str,
}

#[derive(Serialize)]
struct TunnelView {
    protocol: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    port: Option<u16>,
}

/// What a workload serves: the names, or the names with ports.
#[derive(Serialize)]
#[serde(untagged)]
enum Served<'a> {
    Names(Vec<String>),
    Ports(BTreeMap<String, Ports<'a>>),
}

impl Served<'_> {
    fn is_left_out(&self) -> bool {
        matches!(self, Self::Names(names) if names.is_empty())
    }
}

impl<'a> WorkloadView<'a> {
    /// Shows a workload.
    pub fn new(workload: &'a Workload, form: Form) -> Self {
        let services = &workload.services;
        Self {
            uid: &workload.uid,
            workload_ips: &workload.addresses,
            waypoint: workload.waypoint.as_deref().map(GatewayView::from),
            network_gateway: workload.network_gateway.as_deref().map(GatewayView::from),
            protocol: words::protocol(workload.protocol),
            network_mode: words::network_mode(workload.network_mode),
            name: &workload.name,
            namespace: &workload.namespace,
            trust_domain: &workload.trust_domain,
            service_account: &workload.service_account,
            network: &workload.network,
            workload_name: &workload.workload_name,
            workload_type: words::workload_type(workload.workload_type),
            canonical_name: &workload.canonical_name,
            canonical_revision: &workload.canonical_revision,
            hostname: &workload.hostname,
            node: &workload.node,
            authorization_policies: &workload.authorization_policies,
            status: words::health(workload.status),
            cluster_id: &workload.cluster_id,
            locality: locality(&workload.locality),
            services: match form {
                Form::Joined => Served::Names(services.keys().map(ToString::to_string).collect()),
                Form::Given => Served::Ports(
                    services.iter().map(|(key, ports)| (key.to_string(), Ports(ports))).collect(),
                ),
            },
            capacity: workload.capacity,
            application_tunnel: workload.application_tunnel.map(|ApplicationTunnel { protocol, port }| {
                TunnelView { protocol: words::tunnel_protocol(protocol), port }
            }),
        }
    }
}

/// Nothing is said of a place of which nothing is known.
fn locality(of: &Locality) -> Option<LocalityView<'_>> {
    let known = [&of.region, &of.zone, &of.subzone].into_iter().any(|part| !part.is_empty());
    known.then(|| LocalityView { region: &of.region, zone: &of.zone, subzone: &of.subzone })
}
