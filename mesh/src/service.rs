//! A service: names and virtual addresses in front of workloads, and how one of them is chosen.
//!
//! Field meanings are those of the control plane's `istio.workload.Service` message. Endpoints are not part of
//! it: each workload says which services it serves, and the snapshot joins the two.

use std::sync::Arc;

use crate::address::{NamespacedHostname, NetworkAddress, NetworkCidr};
use crate::workload::{GatewayAddress, PortMap};

/// A name and virtual addresses in front of workloads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Service {
    /// Its short name.
    pub name: Arc<str>,
    /// The Kubernetes namespace.
    pub namespace: Arc<str>,
    /// Its full name.
    pub hostname: Arc<str>,
    /// Its virtual addresses; empty if it is headless.
    pub vips: Vec<NetworkAddress>,
    /// Ranges of virtual addresses.
    pub cidr_vips: Vec<NetworkCidr>,
    /// Its ports.
    pub ports: PortMap,
    /// Identities that its endpoints may show besides their own.
    pub subject_alt_names: Vec<Arc<str>>,
    /// Where connections addressed to it go first.
    pub waypoint: Option<Arc<GatewayAddress>>,
    /// Where they go first while traffic is split; sampled for each connection.
    pub weighted_waypoints: Vec<WeightedWaypoint>,
    /// How an endpoint is chosen.
    pub load_balancer: LoadBalancer,
    /// Which families its endpoints are reached by.
    pub ip_families: IpFamilies,
    /// It is what its hostname means, where several say so.
    pub canonical: bool,
    /// Who sees it.
    pub visibility: Visibility,
}

impl Service {
    /// The key that names the service.
    pub fn key(&self) -> NamespacedHostname {
        NamespacedHostname::new(Arc::clone(&self.namespace), Arc::clone(&self.hostname))
    }

    /// Whether clients of every namespace see it.
    pub fn is_public(&self) -> bool {
        self.visibility == Visibility::Public
    }

    /// Whether clients of this namespace see it.
    pub fn visible_to(&self, namespace: &str) -> bool {
        self.is_public() || *self.namespace == *namespace
    }
}

impl Default for Service {
    fn default() -> Self {
        let empty: Arc<str> = Arc::from("");
        Self {
            name: Arc::clone(&empty),
            namespace: Arc::clone(&empty),
            hostname: empty,
            vips: Vec::new(),
            cidr_vips: Vec::new(),
            ports: PortMap::new(),
            subject_alt_names: Vec::new(),
            waypoint: None,
            weighted_waypoints: Vec::new(),
            load_balancer: LoadBalancer::default(),
            ip_families: IpFamilies::default(),
            canonical: false,
            visibility: Visibility::default(),
        }
    }
}

/// A waypoint and its share of the connections.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WeightedWaypoint {
    /// The waypoint.
    pub destination: GatewayAddress,
    /// Its share, relative to the sum of all.
    pub weight: u32,
}

/// How an endpoint is chosen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LoadBalancer {
    /// What should be near, most important first.
    pub preferences: Vec<Scope>,
    /// What the preferences mean.
    pub mode: LoadBalancerMode,
    /// Whether endpoints that are not ready are taken.
    pub health_policy: HealthPolicy,
}

/// Something a client and an endpoint may have in common.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Scope {
    /// The region.
    Region,
    /// The zone.
    Zone,
    /// The part of the zone.
    Subzone,
    /// The node.
    Node,
    /// The cluster.
    Cluster,
    /// The network.
    Network,
}

/// What routing preferences mean.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum LoadBalancerMode {
    /// Nothing: every endpoint is as good.
    #[default]
    Standard,
    /// Every preference must match.
    Strict,
    /// The more leading preferences match, the better; only the best are taken.
    Failover,
    /// No endpoint is chosen: the connection goes where it was addressed.
    Passthrough,
}

/// Whether endpoints that are not ready are taken.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum HealthPolicy {
    /// Only ready ones.
    #[default]
    OnlyHealthy,
    /// All.
    AllowAll,
}

/// Which families a service's endpoints are reached by.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum IpFamilies {
    /// As the client asks.
    #[default]
    Automatic,
    /// IPv4 alone.
    Ipv4Only,
    /// IPv6 alone.
    Ipv6Only,
    /// Both.
    Dual,
}

/// Who sees a service.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Visibility {
    /// Everyone.
    #[default]
    Public,
    /// Clients of its own namespace.
    Namespace,
}
