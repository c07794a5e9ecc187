//! A mesh as a real control plane described it to an agent, written in our types: two nodes, both families, a waypoint,
//! service entries, an endpoint slice without pods, a pod on its node's network.

use std::sync::Arc;

use crate::service::{HealthPolicy, IpFamilies, LoadBalancer, LoadBalancerMode, Scope};
use crate::testing::ip;
use crate::workload::{
    GatewayAddress, GatewayDestination, Health, Locality, NetworkMode, PortMap, Protocol, WorkloadType,
};
use crate::{NamespacedHostname, Service, Snapshot, Workload};

const NODE_A: (&str, &str) = ("node-a", "eu/eu-1/eu-1-rack1");
const NODE_B: (&str, &str) = ("node-b", "eu/eu-2/eu-2-rack1");

/// What an endpoint serves: namespace and first part of the host, service port, its own port.
type Serves = [(&'static str, &'static str, u16, u16)];

/// The key of a cluster service, or of a host that has dots itself.
pub(super) fn key(namespace: &str, name: &str) -> NamespacedHostname {
    let hostname = match name.contains('.') {
        true => name.to_owned(),
        false => format!("{name}.{namespace}.svc.cluster.local"),
    };
    NamespacedHostname::new(namespace, hostname)
}

fn locality(place: &str) -> Arc<Locality> {
    let mut parts = place.split('/').map(Arc::from);
    let mut next = || parts.next().unwrap_or_else(|| Arc::from(""));
    Arc::new(Locality { region: next(), zone: next(), subzone: next() })
}

/// A workload of `namespace/name`, known by `uid` and addresses.
fn workload(uid: &str, namespace: &str, name: &str, addresses: &[&str], serves: &Serves) -> Workload {
    let mut services = std::collections::BTreeMap::new();
    for (namespace, service, port, target) in serves {
        services.entry(key(namespace, service)).or_insert_with(PortMap::new).insert(*port, *target);
    }
    Workload {
        uid: format!("Kubernetes/{uid}").into(),
        name: name.into(),
        namespace: namespace.into(),
        addresses: addresses.iter().map(|address| ip(address)).collect(),
        workload_type: WorkloadType::Pod,
        services: services.into_iter().collect(),
        ..Workload::default()
    }
}

/// A pod outside the mesh; its account is `namespace/account`.
fn plain(
    (node, place): (&str, &str),
    account: &str,
    name: &str,
    addresses: &[&str],
    serves: &Serves,
) -> Workload {
    let (namespace, account) = account.split_once('/').unwrap();
    Workload {
        service_account: account.into(),
        node: node.into(),
        locality: locality(place),
        ..workload(&format!("/Pod/{namespace}/{name}"), namespace, name, addresses, serves)
    }
}

/// A pod in the mesh.
fn pod(place: (&str, &str), account: &str, name: &str, addresses: &[&str], serves: &Serves) -> Workload {
    Workload { protocol: Protocol::Hbone, ..plain(place, account, name, addresses, serves) }
}

/// The names of the pods that the recorded connections come from and go to.
pub(super) const DETAILS: &str = "details-v1-6cbd7b5d9c-11xyz";
pub(super) const PRODUCTPAGE: &str = "productpage-v1-6cbd7b5d9c-10xyz";
pub(super) const REVIEWS1: &str = "reviews-v1-6cbd7b5d9c-20xyz";
pub(super) const REVIEWS2: &str = "reviews-v2-6cbd7b5d9c-21xyz";

const REVIEWS: &Serves = &[
    ("bookinfo", "headless", 9080, 9080),
    ("bookinfo", "nodal", 9080, 9080),
    ("bookinfo", "zonal", 9080, 9080),
    ("bookinfo", "reviews", 9080, 9080),
];

fn pods() -> Vec<Workload> {
    let waypoint = Arc::new(GatewayAddress {
        destination: GatewayDestination::Hostname(key("shop", "shop-waypoint")),
        hbone_mtls_port: 15008,
    });
    let cart = pod(NODE_A, "shop/cart", "cart-1", &["10.1.0.61"], &[("shop", "cart", 80, 8080)]);
    let not_ready: &Serves = &[
        ("bookinfo", "named", 80, 8081),
        ("bookinfo", "named", 443, 8443),
        ("bookinfo", "named", 9000, 9000),
        ("bookinfo", "named", 53, 53),
        ("bookinfo", "eager", 80, 8081),
    ];
    let not_ready = pod(NODE_A, "bookinfo/default", "notready", &["10.1.0.31"], not_ready);
    let details: &Serves = &[("bookinfo", "dual-details", 80, 9080), ("bookinfo", "details", 9080, 9080)];
    let ratings: &Serves = &[("bookinfo", "private", 9080, 9080), ("bookinfo", "ratings", 9080, 9080)];
    let productpage: &Serves = &[("bookinfo", "productpage", 9080, 9080)];
    let waypoints: &Serves =
        &[("shop", "shop-waypoint", 15021, 15021), ("shop", "shop-waypoint", 15008, 15008)];
    vec![
        pod(
            NODE_A,
            "bookinfo/sleep",
            "sleep",
            &["10.1.0.30", "fd00:1::30"],
            &[("bookinfo", "dual", 80, 8080)],
        ),
        pod(NODE_A, "bookinfo/bookinfo-productpage", PRODUCTPAGE, &["10.1.0.10", "fd00:1::10"], productpage),
        pod(NODE_A, "bookinfo/bookinfo-reviews", REVIEWS1, &["10.1.0.20"], REVIEWS),
        pod(NODE_B, "bookinfo/bookinfo-reviews", REVIEWS2, &["10.1.1.21"], REVIEWS),
        pod(NODE_B, "bookinfo/bookinfo-reviews", "reviews-v3-6cbd7b5d9c-22xyz", &["10.1.1.22"], REVIEWS),
        pod(NODE_B, "bookinfo/bookinfo-details", DETAILS, &["10.1.1.11", "fd00:2::11"], details),
        pod(NODE_B, "bookinfo/bookinfo-ratings", "ratings-v1-6cbd7b5d9c-12xyz", &["10.1.1.12"], ratings),
        pod(NODE_B, "bookinfo/default", "once-x7k2p", &["10.1.1.32"], &[]),
        Workload { status: Health::Unhealthy, ..not_ready },
        Workload { waypoint: Some(waypoint), ..cart },
        plain(NODE_B, "shop/shop-waypoint", "shop-waypoint-abc12", &["10.1.1.60"], waypoints),
        plain(NODE_B, "plain/default", "outsider", &["10.1.1.41"], &[]),
        plain(NODE_B, "plain/default", "sidecar", &["10.1.1.40"], &[]),
        Workload {
            network_mode: NetworkMode::HostNetwork,
            ..plain(NODE_A, "bookinfo/default", "hostnet", &["100.64.1.11"], &[])
        },
    ]
}

fn entries() -> Vec<Workload> {
    let vm = |name: &str, addresses: &[&str], port| {
        let uid = format!("networking.istio.io/WorkloadEntry/vm/{name}");
        let entry = workload(&uid, "vm", name, addresses, &[("vm", "mysql.corp.example", 3306, port)]);
        Workload { service_account: "mysql".into(), ..entry }
    };
    let inline = |address: &str, port| {
        let uid = format!("networking.istio.io/ServiceEntry/vm/inline/{address}");
        let serves = [("vm", "inline.corp.example", 80, port), ("vm", "alias.corp.example", 80, port)];
        workload(&uid, "vm", "inline", &[address], &serves)
    };
    let slice = |address: &str, status| Workload {
        status,
        network_mode: NetworkMode::HostNetwork,
        workload_type: WorkloadType::default(),
        ..workload(
            &format!("discovery.k8s.io/EndpointSlice/bookinfo/manual-1/{address}"),
            "bookinfo",
            "manual-1",
            &[address],
            &[("bookinfo", "manual", 80, 8000)],
        )
    };
    let by_name: &Serves = &[("vm", "api.external.example", 443, 443)];
    let edge = "networking.istio.io/ServiceEntry/vm/byname/edge.external.example";
    vec![
        Workload {
            protocol: Protocol::Hbone,
            locality: locality("eu/eu-1/rack9"),
            capacity: 7,
            ..vm("mysql-vm1", &["203.0.113.21"], 33061)
        },
        vm("mysql-vm2", &["203.0.113.22"], 33060),
        Workload { locality: locality("us/us-1"), ..inline("203.0.113.31", 8080) },
        inline("203.0.113.32", 80),
        Workload { hostname: "edge.external.example".into(), ..workload(edge, "vm", "byname", &[], by_name) },
        slice("198.51.100.7", Health::Healthy),
        slice("198.51.100.8", Health::Unhealthy),
    ]
}

fn service(namespace: &str, name: &str, vips: &[&str], ports: &[(u16, u16)]) -> Service {
    let key = key(namespace, name);
    let v6 = vips.iter().any(|vip| vip.contains(':'));
    Service {
        name: name.split('.').next().unwrap().into(),
        namespace: key.namespace,
        hostname: key.hostname,
        vips: vips.iter().map(|vip| format!("/{vip}").parse().unwrap()).collect(),
        ports: ports.iter().copied().collect(),
        ip_families: if v6 { IpFamilies::Dual } else { IpFamilies::Ipv4Only },
        canonical: true,
        ..Service::default()
    }
}

fn failover(preferences: &[Scope]) -> LoadBalancer {
    LoadBalancer {
        preferences: preferences.to_vec(),
        mode: LoadBalancerMode::Failover,
        ..LoadBalancer::default()
    }
}

fn services() -> Vec<Service> {
    use Scope::{Network, Node, Region, Subzone, Zone};
    let allow_all = || LoadBalancer { health_policy: HealthPolicy::AllowAll, ..LoadBalancer::default() };
    let external = |service| Service { ip_families: IpFamilies::Automatic, ..service };
    let in_bookinfo = |name: &str, vip: &str| service("bookinfo", name, &[vip], &[(9080, 9080)]);
    let waypoint = Arc::new(GatewayAddress {
        destination: GatewayDestination::Hostname(key("shop", "shop-waypoint")),
        hbone_mtls_port: 15008,
    });
    let waypoint_ports = &[(15021, 15021), (15008, 15008)];
    let named = &[(80, 0), (443, 8443), (9000, 9000), (53, 53)];
    vec![
        in_bookinfo("reviews", "10.96.174.94"),
        in_bookinfo("private", "10.96.200.186"),
        in_bookinfo("details", "10.96.71.134"),
        in_bookinfo("ratings", "10.96.16.141"),
        in_bookinfo("productpage", "10.96.237.60"),
        Service { vips: Vec::new(), ..in_bookinfo("headless", "10.96.0.0") },
        Service { load_balancer: failover(&[Network, Region, Zone]), ..in_bookinfo("zonal", "10.96.42.98") },
        Service {
            load_balancer: failover(&[Network, Region, Zone, Subzone, Node]),
            ..in_bookinfo("nodal", "10.96.235.66")
        },
        service("bookinfo", "dual", &["10.96.172.242", "fd00:96::b5d3"], &[(80, 8080)]),
        service("bookinfo", "dual-details", &["fd00:96::94bc", "10.96.62.180"], &[(80, 9080)]),
        service("bookinfo", "manual", &["10.96.248.243"], &[(80, 8000)]),
        service("bookinfo", "named", &["10.96.147.139"], named),
        Service {
            load_balancer: allow_all(),
            ..service("bookinfo", "eager", &["10.96.193.66"], &[(80, 8081)])
        },
        service("default", "kubernetes", &["10.96.0.1"], &[(443, 16443)]),
        Service {
            load_balancer: failover(&[Network, Region, Zone]),
            ..service("shop", "shop-waypoint", &["10.96.87.53", "fd00:96::14b8"], waypoint_ports)
        },
        Service { waypoint: Some(waypoint), ..service("shop", "cart", &["10.96.153.165"], &[(80, 8080)]) },
        external(service("vm", "api.external.example", &["240.240.0.1", "2001:2::1"], &[(443, 443)])),
        Service {
            subject_alt_names: vec!["spiffe://cluster.local/ns/vm/sa/mysql".into()],
            ..external(service("vm", "mysql.corp.example", &["240.0.0.9"], &[(3306, 33060)]))
        },
        external(service("vm", "inline.corp.example", &["240.0.0.10"], &[(80, 80)])),
        external(service("vm", "alias.corp.example", &["240.0.0.10"], &[(80, 80)])),
        Service {
            cidr_vips: vec!["/240.0.1.0/24".parse().unwrap()],
            load_balancer: LoadBalancer { mode: LoadBalancerMode::Passthrough, ..allow_all() },
            ..external(service("vm", "*.wild.example", &[], &[(80, 80)]))
        },
    ]
}

/// The mesh, without policies.
pub(super) fn mesh() -> Snapshot {
    crate::testing::snapshot(pods().into_iter().chain(entries()), services(), [])
}
