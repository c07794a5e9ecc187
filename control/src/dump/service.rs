//! A service as it is shown, with the endpoints that it has now.

use std::collections::BTreeMap;
use std::sync::Arc;

use mesh::service::{HealthPolicy, LoadBalancer};
use mesh::workload::Health;
use mesh::{NamespacedHostname, NetworkAddress, Service, Snapshot};
use serde::Serialize;

use super::Form;
use super::words::{self, GatewayView, Ports, Text};

/// A service in the words of `/config_dump`.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct ServiceView<'a> {
    name: &'a str,
    namespace: &'a str,
    hostname: &'a str,
    vips: Vec<Text<&'a NetworkAddress>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    cidr_vips: Vec<CidrView<'a>>,
    ports: Ports<'a>,
    endpoints: BTreeMap<&'a str, EndpointView<'a>>,
    subject_alt_names: &'a [Arc<str>],
    #[serde(skip_serializing_if = "Option::is_none")]
    waypoint: Option<GatewayView<'a>>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    weighted_waypoints: Vec<WeightedView<'a>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    load_balancer: Option<LoadBalancerView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    ip_families: Option<&'static str>,
    canonical: bool,
    visibility: &'static str,
}

#[derive(Serialize)]
struct CidrView<'a> {
    network: &'a str,
    cidr: Text<ipnet::IpNet>,
}

#[derive(Serialize)]
struct WeightedView<'a> {
    #[serde(flatten)]
    destination: GatewayView<'a>,
    weight: u32,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct LoadBalancerView {
    routing_preferences: Vec<&'static str>,
    mode: &'static str,
    health_policy: &'static str,
}

/// A workload in its part as an endpoint.
#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
pub struct EndpointView<'a> {
    workload_uid: &'a str,
    port: Ports<'a>,
    status: &'static str,
}

impl<'a> ServiceView<'a> {
    /// Shows a service of a snapshot. Of its endpoints those are left out that it does not choose for not being ready.
    pub fn new(snapshot: &'a Snapshot, service: &'a Service, form: Form) -> Self {
        let ready_only = service.load_balancer.health_policy == HealthPolicy::OnlyHealthy;
        let weighted = service.weighted_waypoints.iter().map(|waypoint| WeightedView {
            destination: (&waypoint.destination).into(),
            weight: waypoint.weight,
        });
        Self {
            name: &service.name,
            namespace: &service.namespace,
            hostname: &service.hostname,
            vips: service.vips.iter().map(Text).collect(),
            cidr_vips: service
                .cidr_vips
                .iter()
                .map(|vip| CidrView { network: &vip.network, cidr: Text(vip.cidr) })
                .collect(),
            ports: Ports(&service.ports),
            endpoints: match form {
                Form::Joined => endpoints(snapshot, &service.key(), ready_only),
                Form::Given => BTreeMap::new(),
            },
            subject_alt_names: &service.subject_alt_names,
            waypoint: service.waypoint.as_deref().map(GatewayView::from),
            weighted_waypoints: weighted.collect(),
            load_balancer: load_balancer(&service.load_balancer),
            ip_families: words::ip_families(service.ip_families),
            canonical: service.canonical,
            visibility: words::visibility(service.visibility),
        }
    }
}

/// The endpoints that wait for or stand behind a service of this name, by the uids of their workloads; with `ready_only`
/// those alone that are ready.
pub fn endpoints<'a>(
    snapshot: &'a Snapshot,
    key: &NamespacedHostname,
    ready_only: bool,
) -> BTreeMap<&'a str, EndpointView<'a>> {
    let endpoints = snapshot.endpoints(key);
    let shown = endpoints.filter(|endpoint| !ready_only || endpoint.workload.status == Health::Healthy);
    let view = |endpoint: mesh::Endpoint<'a>| {
        let uid = &*endpoint.workload.uid;
        let status = words::health(endpoint.workload.status);
        (uid, EndpointView { workload_uid: uid, port: Ports(endpoint.ports), status })
    };
    shown.map(view).collect()
}

/// Nothing is said of one that has no wishes.
fn load_balancer(of: &LoadBalancer) -> Option<LoadBalancerView> {
    (*of != LoadBalancer::default()).then(|| LoadBalancerView {
        routing_preferences: of.preferences.iter().copied().map(words::scope).collect(),
        mode: words::mode(of.mode),
        health_policy: words::health_policy(of.health_policy),
    })
}
