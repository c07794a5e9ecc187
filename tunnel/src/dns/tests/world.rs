//! A mesh like the one that the peer's answers were recorded in, with what that one lacks.

use std::net::IpAddr;

use mesh::service::{HealthPolicy, IpFamilies, LoadBalancer, LoadBalancerMode, Visibility};
use mesh::workload::{Health, PortMap};
use mesh::{NamespacedHostname, Service, Snapshot, Workload};

use crate::dns::find::Asker;
use crate::dns::host::Host;
use crate::dns::settings::Settings;

/// A mesh, and a client in it.
pub(super) struct World {
    pub(super) snapshot: Snapshot,
    pub(super) namespace: &'static str,
    pub(super) network: &'static str,
    pub(super) settings: Settings,
    pub(super) cluster_domain: Host,
    pub(super) ipv6: bool,
}

impl World {
    /// A client in namespace `bookinfo`, with the settings of Kubernetes.
    pub(super) fn new() -> Self {
        Self {
            snapshot: snapshot(),
            namespace: "bookinfo",
            network: "",
            settings: Settings::of_kubernetes("bookinfo", "cluster.local"),
            cluster_domain: Host::parse("cluster.local").unwrap(),
            ipv6: true,
        }
    }

    /// The client in another namespace.
    pub(super) fn of(namespace: &'static str) -> Self {
        Self { namespace, settings: Settings::of_kubernetes(namespace, "cluster.local"), ..Self::new() }
    }

    /// The client with a `resolv.conf` of its own.
    pub(super) fn with(resolv_conf: &str) -> Self {
        Self { settings: Settings::parse(resolv_conf), ..Self::new() }
    }

    pub(super) fn asker(&self, seed: u64) -> Asker<'_> {
        Asker {
            snapshot: &self.snapshot,
            namespace: self.namespace,
            network: self.network,
            settings: &self.settings,
            cluster_domain: &self.cluster_domain,
            ipv6: self.ipv6,
            seed,
        }
    }
}

fn service(namespace: &str, hostname: &str, vips: &[&str], ports: &[(u16, u16)]) -> Service {
    Service {
        name: hostname.split('.').next().unwrap_or_default().into(),
        namespace: namespace.into(),
        hostname: hostname.into(),
        vips: vips.iter().map(|vip| vip.parse().unwrap()).collect(),
        ports: ports.iter().copied().collect(),
        canonical: true,
        ..Service::default()
    }
}

fn pod(name: &str, addresses: &[&str], serves: &[&str]) -> Workload {
    let key = |text: &str| text.parse::<NamespacedHostname>().unwrap();
    Workload {
        uid: format!("Kubernetes//Pod/bookinfo/{name}").into(),
        name: name.into(),
        namespace: "bookinfo".into(),
        addresses: addresses.iter().map(|ip| ip.parse::<IpAddr>().unwrap()).collect(),
        services: serves.iter().map(|text| (key(text), PortMap::new())).collect(),
        ..Workload::default()
    }
}

fn with_mode(service: Service, mode: LoadBalancerMode) -> Service {
    Service { load_balancer: LoadBalancer { mode, ..LoadBalancer::default() }, ..service }
}

fn services() -> Vec<Service> {
    let all = LoadBalancer { health_policy: HealthPolicy::AllowAll, ..LoadBalancer::default() };
    let ranges = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    let local = |name: &str, vips: &[&str]| {
        service("bookinfo", &format!("{name}.bookinfo.svc.cluster.local"), vips, &[(9080, 9080)])
    };
    vec![
        local("reviews", &["/10.96.213.85"]),
        local("dual", &["/10.96.84.41", "/fd00:96::ce36"]),
        Service { ip_families: IpFamilies::Ipv4Only, ..local("headless", &[]) },
        Service { load_balancer: all, ..local("eager", &[]) },
        local("strict", &[]),
        local("empty", &[]),
        local("remote", &["east/10.96.7.7"]),
        service("shop", "cart.shop.svc.cluster.local", &["/10.96.132.90"], &[(80, 8080), (443, 8443)]),
        service("vm", "mysql.corp.example", &["/240.0.0.9"], &[(3306, 33060)]),
        service("vm", "api.external.example", &["/240.240.0.1", "/2001:2::1"], &[(443, 443)]),
        service("vm", "Mixed.Case.example", &["/240.240.0.2"], &[]),
        service("vm", "bare.corp.example", &[], &[(80, 8080)]),
        service("vm", "byname.corp.example", &[], &[(443, 443)]),
        Service {
            cidr_vips: ranges(&["/240.0.1.0/24"]),
            ..with_mode(service("vm", "*.wild.example", &[], &[(80, 80)]), LoadBalancerMode::Passthrough)
        },
        Service {
            cidr_vips: ranges(&["/240.0.2.0/24", "/fd02::/64"]),
            ..service("vm", "*.static.example", &[], &[])
        },
        service("vm", "*.example.org", &["/240.240.1.1"], &[(80, 80)]),
        service("vm", "*.deep.example.org", &["/240.240.1.2"], &[]),
        service("vm", "exact.example.org", &["/240.240.1.3"], &[]),
        service("vm", "com.example.org", &["/240.240.1.4"], &[]),
        // Two namespaces mean different things by one name.
        Service { canonical: false, ..service("bookinfo", "twice.example", &["/240.240.2.1"], &[]) },
        service("vm", "twice.example", &["/240.240.2.2"], &[]),
        Service {
            visibility: Visibility::Namespace,
            ..service("vm", "secret.example", &["/240.240.3.1"], &[])
        },
        service("vm", "split.example", &["/240.240.4.1", "east/240.240.4.2"], &[]),
        service("vm", "named.nginx.svc.cluster.local", &["/10.96.9.9"], &[]),
        service("nginx", "web-0.nginx.svc.cluster.local", &["/10.96.9.10"], &[]),
        service("bookinfo", "nginx.bookinfo.svc.cluster.local", &[], &[]),
    ]
}

fn snapshot() -> Snapshot {
    let headless = "bookinfo/headless.bookinfo.svc.cluster.local";
    let bare = "vm/bare.corp.example";
    let mut other_port = pod("vm2", &["203.0.113.32", "2001:db8::32"], &[]);
    other_port.services.insert(bare.parse().unwrap(), PortMap::from([(80, 8081)]));
    let workloads = [
        pod("r1", &["10.1.0.20"], &[headless]),
        pod("r2", &["10.1.1.21", "fd00:1::21"], &[headless]),
        Workload { status: Health::Unhealthy, ..pod("r3", &["10.1.1.22"], &[headless]) },
        Workload { network: "east".into(), ..pod("r4", &["10.1.0.99"], &[headless]) },
        Workload {
            status: Health::Unhealthy,
            ..pod(
                "slow",
                &["10.1.0.31"],
                &["bookinfo/eager.bookinfo.svc.cluster.local", "bookinfo/strict.bookinfo.svc.cluster.local"],
            )
        },
        pod("vm1", &["203.0.113.31"], &[bare]),
        other_port,
        Workload {
            hostname: "edge.external.example".into(),
            ..pod("byname", &[], &["vm/byname.corp.example"])
        },
        Workload { hostname: "VM.hosts.example".into(), ..pod("host1", &["203.0.113.41"], &[]) },
        Workload { hostname: "vm.hosts.example".into(), ..pod("host2", &["203.0.113.42", "fd00:9::2"], &[]) },
        Workload {
            hostname: "far.hosts.example".into(),
            network: "east".into(),
            ..pod("host3", &["203.0.113.43"], &[])
        },
        Workload {
            hostname: "down.hosts.example".into(),
            status: Health::Unhealthy,
            ..pod("host4", &["203.0.113.44"], &[])
        },
    ];
    let mut editor = Snapshot::default().edit();
    services().into_iter().for_each(|service| editor.insert_service(service));
    workloads.into_iter().for_each(|workload| editor.insert_workload(workload));
    editor.finish()
}
