//! A workload: one endpoint of the mesh, as the control plane describes it.
//!
//! Field meanings are those of the control plane's `istio.workload.Workload` message. Defaults here are what
//! an absent field means on the wire.

use std::net::IpAddr;
use std::sync::Arc;

use crate::address::{NamespacedHostname, NetworkAddress};
use crate::few::Few;
use crate::identity::Identity;
use crate::sorted::SortedMap;

/// Service port to target port. Target 0: the endpoint's own entry decides; in an endpoint: the same port.
pub type PortMap = SortedMap<u16, u16>;

/// One endpoint of the mesh: usually a pod, else a machine or an external host.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Workload {
    /// Names the workload in the whole mesh, such as `Kubernetes//Pod/default/sleep`.
    pub uid: Arc<str>,
    /// Its name; a pod's is the pod's.
    pub name: Arc<str>,
    /// The Kubernetes namespace.
    pub namespace: Arc<str>,
    /// The trust domain of its identity.
    pub trust_domain: Arc<str>,
    /// The service account of its identity.
    pub service_account: Arc<str>,
    /// The network its addresses are on, empty for the default one.
    pub network: Arc<str>,
    /// Its addresses, canonical; empty if it is known by hostname only.
    pub addresses: Few<IpAddr>,
    /// What it speaks.
    pub protocol: Protocol,
    /// Whether its addresses are its own.
    pub network_mode: NetworkMode,
    /// Where connections addressed to one of its IPs go first.
    pub waypoint: Option<Arc<GatewayAddress>>,
    /// The way in to its network from another one.
    pub network_gateway: Option<Arc<GatewayAddress>>,
    /// The node it runs on, empty if none.
    pub node: Arc<str>,
    /// The application it belongs to, for telemetry.
    pub canonical_name: Arc<str>,
    /// That application's revision, for telemetry.
    pub canonical_revision: Arc<str>,
    /// What kind of object owns it, for telemetry.
    pub workload_type: WorkloadType,
    /// The name of that owner.
    pub workload_name: Arc<str>,
    /// Selector-scoped policies that apply to it, as `namespace/name`.
    pub authorization_policies: Vec<Arc<str>>,
    /// Whether it is ready to serve.
    pub status: Health,
    /// The cluster it runs in.
    pub cluster_id: Arc<str>,
    /// The name to resolve where it has no address, else empty.
    pub hostname: Arc<str>,
    /// How connections that arrive for others are passed to its application, if it takes such.
    pub application_tunnel: Option<ApplicationTunnel>,
    /// Where it runs.
    pub locality: Arc<Locality>,
    /// Its weight among the endpoints of a service.
    pub capacity: u32,
    /// The services it serves, with the port for each service port.
    pub services: SortedMap<NamespacedHostname, PortMap>,
}

impl Workload {
    /// The identity its certificate carries.
    pub fn identity(&self) -> Identity {
        Identity::new(
            Arc::clone(&self.trust_domain),
            Arc::clone(&self.namespace),
            Arc::clone(&self.service_account),
        )
    }

    /// Whether its uid says that it is a Kubernetes pod (`<cluster>//Pod/<namespace>/<name>`).
    pub fn is_pod(&self) -> bool {
        self.uid.rsplitn(3, '/').nth(2).is_some_and(|kind| kind.ends_with("/Pod"))
    }

    /// Its addresses, each on its network.
    pub fn network_addresses(&self) -> impl Iterator<Item = NetworkAddress> + '_ {
        self.addresses.iter().map(|address| NetworkAddress::new(Arc::clone(&self.network), *address))
    }
}

impl Default for Workload {
    fn default() -> Self {
        let empty: Arc<str> = Arc::from("");
        Self {
            uid: Arc::clone(&empty),
            name: Arc::clone(&empty),
            namespace: Arc::clone(&empty),
            trust_domain: Arc::from("cluster.local"),
            service_account: Arc::from("default"),
            network: Arc::clone(&empty),
            addresses: Few::new(),
            protocol: Protocol::default(),
            network_mode: NetworkMode::default(),
            waypoint: None,
            network_gateway: None,
            node: Arc::clone(&empty),
            canonical_name: Arc::clone(&empty),
            canonical_revision: Arc::clone(&empty),
            workload_type: WorkloadType::default(),
            workload_name: Arc::clone(&empty),
            authorization_policies: Vec::new(),
            status: Health::default(),
            cluster_id: Arc::from("Kubernetes"),
            hostname: empty,
            application_tunnel: None,
            locality: Arc::default(),
            capacity: 1,
            services: SortedMap::new(),
        }
    }
}

/// What a workload speaks.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Protocol {
    /// Plain TCP: it is not in the mesh.
    #[default]
    Tcp,
    /// HBONE on port 15008.
    Hbone,
}

/// Whether a workload's addresses are its own.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum NetworkMode {
    /// Its own.
    #[default]
    Standard,
    /// Its node's, shared with others: never used to find it.
    HostNetwork,
}

/// The kind of object that owns a workload.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum WorkloadType {
    /// A Deployment, or unknown.
    #[default]
    Deployment,
    /// A CronJob.
    CronJob,
    /// A pod without an owner.
    Pod,
    /// A Job.
    Job,
}

/// Whether a workload is ready to serve.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Health {
    /// Ready.
    #[default]
    Healthy,
    /// Not ready: no endpoint, unless its service allows that.
    Unhealthy,
}

/// Where a workload runs. Empty parts are unknown.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Locality {
    /// The region.
    pub region: Arc<str>,
    /// The zone of the region.
    pub zone: Arc<str>,
    /// The part of the zone.
    pub subzone: Arc<str>,
}

impl Default for Locality {
    fn default() -> Self {
        let empty: Arc<str> = Arc::from("");
        Self { region: Arc::clone(&empty), zone: Arc::clone(&empty), subzone: empty }
    }
}

/// Where a waypoint or a network gateway is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GatewayAddress {
    /// The place.
    pub destination: GatewayDestination,
    /// The port on which it takes HBONE.
    pub hbone_mtls_port: u16,
}

/// The place of a gateway: the address or the name of a service or a workload.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum GatewayDestination {
    /// By address.
    Address(NetworkAddress),
    /// By name.
    Hostname(NamespacedHostname),
}

impl std::fmt::Display for GatewayDestination {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Address(address) => address.fmt(f),
            Self::Hostname(hostname) => hostname.fmt(f),
        }
    }
}

/// How connections for others are passed to a workload's application.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct ApplicationTunnel {
    /// In which form.
    pub protocol: TunnelProtocol,
    /// On which port; absent: the one asked for.
    pub port: Option<u16>,
}

/// The form in which an application takes connections for others.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TunnelProtocol {
    /// The bytes alone.
    #[default]
    None,
    /// The bytes after a PROXY protocol version 2 header.
    Proxy,
}

#[cfg(test)]
mod tests {
    use super::*;

    /// There are tens of thousands of them, each with two counters in front of it.
    #[test]
    fn workloads_are_small() {
        assert!(size_of::<Workload>() <= 304, "{} bytes", size_of::<Workload>());
    }

    #[test]
    fn pods_are_told_by_their_uid() {
        for (uid, pod) in [
            ("Kubernetes//Pod/default/sleep", true),
            ("Kubernetes//v1/Pod/default/sleep", true),
            ("Kubernetes/networking.istio.io/WorkloadEntry/vm/db", false),
            ("Kubernetes/networking.istio.io/ServiceEntry/ns/Pod/10.0.0.1", false),
            ("Kubernetes/discovery.k8s.io/EndpointSlice/ns/slice/10.0.0.1", false),
            ("Pod", false),
            ("", false),
        ] {
            let workload = Workload { uid: uid.into(), ..Workload::default() };
            assert_eq!(workload.is_pod(), pod, "{uid}");
        }
    }
}
