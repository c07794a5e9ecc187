//! What holds of every plan and of every tunnel that arrives, on meshes made up at random, most of them nonsense.

use std::net::{IpAddr, SocketAddr};

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::policies::config;
use crate::inbound::{application_tunnel, destination};
use crate::service::{
    HealthPolicy, IpFamilies, LoadBalancer, LoadBalancerMode, Scope, Visibility, WeightedWaypoint,
};
use crate::testing::{ip, key, socket};
use crate::workload::{
    ApplicationTunnel, GatewayAddress, GatewayDestination, Health, NetworkMode, PortMap, Protocol,
    TunnelProtocol,
};
use crate::{Authority, Flow, HBONE_PORT, HopKind, Refusal, Route, Service, Snapshot, Workload, plan};

/// Mostly the default one.
const NETWORKS: [&str; 6] = ["", "", "", "", "", "east"];
const PODS: [&str; 5] = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "fd00::1", "fd00::2"];
const VIPS: [&str; 3] = ["10.1.0.1", "10.1.0.2", "fd01::1"];
const RANGES: [&str; 4] = ["10.1.0.0/24", "10.0.0.0/30", "fd00::/16", "10.1.0.2/32"];
const NAMES: [&str; 3] = ["web", "wp", "gw"];

/// All that the control plane said.
#[derive(Debug, Clone)]
struct Said {
    workloads: Vec<Workload>,
    services: Vec<Service>,
}

impl Said {
    fn mesh(&self) -> Snapshot {
        crate::testing::snapshot(self.workloads.iter().cloned(), self.services.iter().cloned(), [])
    }

    /// The services that have an address on a network, as a client of `namespace` sees them.
    fn services_at(&self, network: &str, address: IpAddr, namespace: &str) -> Vec<&Service> {
        let here = |service: &&Service| {
            let exactly = service.vips.iter().any(|vip| &*vip.network == network && vip.address == address);
            let inside =
                |range: &crate::NetworkCidr| &*range.network == network && range.cidr.contains(&address);
            let seen = service.visibility == Visibility::Public || &*service.namespace == namespace;
            seen && (exactly || service.cidr_vips.iter().any(inside))
        };
        self.services.iter().filter(here).collect()
    }

    fn has_workload_at(&self, network: &str, address: IpAddr) -> bool {
        self.workloads.iter().any(|workload| {
            let own = workload.network_mode == NetworkMode::Standard;
            own && &*workload.network == network && workload.addresses.contains(&address)
        })
    }
}

fn gateway() -> impl Strategy<Value = GatewayAddress> {
    let by_name = select(NAMES.to_vec()).prop_map(|name| GatewayDestination::Hostname(key(name)));
    let addresses: Vec<&str> = PODS.iter().chain(&VIPS).copied().collect();
    let by_address = (select(NETWORKS.to_vec()), select(addresses)).prop_map(|(network, address)| {
        GatewayDestination::Address(crate::NetworkAddress::new(network, ip(address)))
    });
    let port = select(vec![HBONE_PORT, HBONE_PORT, 80, 15443]);
    (prop_oneof![by_name, by_address], port)
        .prop_map(|(destination, hbone_mtls_port)| GatewayAddress { destination, hbone_mtls_port })
}

fn ports() -> impl Strategy<Value = PortMap> {
    let target = select(vec![0, 80, 8080, HBONE_PORT]);
    let any = vec((select(vec![80, 443, HBONE_PORT]), target), 0..3)
        .prop_map(|all| all.into_iter().collect::<PortMap>());
    prop_oneof![3 => Just(PortMap::from([(80, 8080), (HBONE_PORT, HBONE_PORT)])), 1 => any]
}

fn workload() -> impl Strategy<Value = Workload> {
    let addresses = prop_oneof![1 => Just(Vec::new()), 5 => vec(select(PODS.to_vec()), 1..3)];
    let what = (
        select(vec![Protocol::Tcp, Protocol::Hbone]),
        select(vec![NetworkMode::Standard, NetworkMode::Standard, NetworkMode::HostNetwork]),
        select(vec![Health::Healthy, Health::Healthy, Health::Unhealthy]),
        select(NETWORKS.to_vec()),
        select(vec!["", "edge.example"]),
        0_u32..3,
    );
    let gateways = (prop::option::weighted(0.2, gateway()), prop::option::weighted(0.4, gateway()));
    let serves = vec((select(NAMES.to_vec()), ports()), 0..4);
    let tunnel = (
        select(vec![TunnelProtocol::None, TunnelProtocol::Proxy]),
        prop::option::of(select(vec![80, HBONE_PORT])),
    );
    let tunnel = tunnel.prop_map(|(protocol, port)| ApplicationTunnel { protocol, port });
    (addresses, what, gateways, serves, prop::option::weighted(0.1, tunnel)).prop_map(
        |(addresses, what, gateways, serves, application_tunnel)| Workload {
            namespace: "default".into(),
            addresses: addresses.into_iter().map(ip).collect(),
            protocol: what.0,
            network_mode: what.1,
            status: what.2,
            network: what.3.into(),
            hostname: what.4.into(),
            capacity: what.5,
            waypoint: gateways.0.map(Into::into),
            network_gateway: gateways.1.map(Into::into),
            services: serves.into_iter().map(|(name, ports)| (key(name), ports)).collect(),
            application_tunnel,
            ..Workload::default()
        },
    )
}

fn service() -> impl Strategy<Value = Service> {
    let network = || select(NETWORKS.to_vec());
    let vips = vec((network(), select(VIPS.to_vec())), 0..3);
    let ranges = vec((network(), select(RANGES.to_vec())), 0..2);
    let preferences = vec(select(vec![Scope::Network, Scope::Region, Scope::Node, Scope::Cluster]), 0..3);
    let mode = select(vec![
        LoadBalancerMode::Standard,
        LoadBalancerMode::Strict,
        LoadBalancerMode::Failover,
        LoadBalancerMode::Passthrough,
    ]);
    let balancer = (preferences, mode, select(vec![HealthPolicy::OnlyHealthy, HealthPolicy::AllowAll]));
    let weighted = vec((gateway(), 0_u32..3), 0..3);
    let waypoints =
        (prop::option::weighted(0.3, gateway()), prop_oneof![3 => Just(Vec::new()), 1 => weighted]);
    let families = vec![IpFamilies::Automatic, IpFamilies::Ipv4Only, IpFamilies::Ipv6Only, IpFamilies::Dual];
    let seen = (select(vec![Visibility::Public, Visibility::Namespace]), any::<bool>(), select(families));
    (vips, ranges, ports(), balancer, waypoints, seen).prop_map(
        |(vips, ranges, ports, balancer, waypoints, seen)| Service {
            vips: vips.into_iter().map(|(net, vip)| crate::NetworkAddress::new(net, ip(vip))).collect(),
            cidr_vips: ranges
                .into_iter()
                .map(|(net, range)| format!("{net}/{range}").parse().unwrap())
                .collect(),
            ports,
            load_balancer: LoadBalancer {
                preferences: balancer.0,
                mode: balancer.1,
                health_policy: balancer.2,
            },
            waypoint: waypoints.0.map(Into::into),
            weighted_waypoints: waypoints
                .1
                .into_iter()
                .map(|(destination, weight)| WeightedWaypoint { destination, weight })
                .collect(),
            visibility: seen.0,
            canonical: seen.1,
            ip_families: seen.2,
            ..Service::default()
        },
    )
}

fn said() -> impl Strategy<Value = Said> {
    (vec(workload(), 1..6), vec(service(), 0..4)).prop_map(|(workloads, services)| Said {
        workloads: workloads
            .into_iter()
            .enumerate()
            .map(|(n, workload)| Workload {
                uid: format!("Kubernetes//Pod/default/w{n}").into(),
                name: format!("w{n}").into(),
                service_account: format!("w{n}").into(),
                ..workload
            })
            .collect(),
        services: services
            .into_iter()
            .enumerate()
            .map(|(n, service)| {
                let key = key(NAMES[n % NAMES.len()]);
                let namespace = if n < NAMES.len() { key.namespace } else { "elsewhere".into() };
                Service { name: NAMES[n % NAMES.len()].into(), hostname: key.hostname, namespace, ..service }
            })
            .collect(),
    })
}

fn wanted() -> impl Strategy<Value = SocketAddr> {
    let known: Vec<&str> = PODS.iter().chain(&VIPS).copied().collect();
    let strange = vec![
        "198.51.100.1",
        "127.0.0.1",
        "::1",
        "::ffff:10.0.0.1",
        "::ffff:127.0.0.1",
        "0.0.0.0",
        "10.1.0.99",
    ];
    let address = prop_oneof![8 => select(known), 1 => select(strange)];
    let port = prop_oneof![6 => Just(80), 1 => select(vec![443, 8080, HBONE_PORT, 0, 65535])];
    (address, port).prop_map(|(address, port)| SocketAddr::new(ip(address), port))
}

proptest! {
    #![proptest_config(config(3000))]

    #[test]
    fn every_plan_is_sound(
        said in said(),
        from in any::<prop::sample::Index>(),
        wanted in wanted(),
        network in select(NETWORKS.to_vec()),
        pick in any::<u64>(),
    ) {
        let mesh = said.mesh();
        let source = &said.workloads[from.index(said.workloads.len())];
        let source_address = source.addresses.first().copied().unwrap_or(ip("10.0.0.9"));
        let flow = Flow { source, source_address, destination: wanted, network, pick, exclude: &[] };
        let outcome = plan(&mesh, &flow);
        prop_assert_eq!(&outcome, &plan(&mesh, &flow), "the same question, another answer");
        let address = wanted.ip().to_canonical();
        let services = said.services_at(network, address, &source.namespace);
        match outcome {
            Ok(Route::Passthrough { destination }) => {
                prop_assert_eq!(destination, SocketAddr::new(address, wanted.port()));
                prop_assert!(!address.is_loopback() && wanted.port() != HBONE_PORT);
                let left_alone =
                    services.iter().any(|service| service.load_balancer.mode == LoadBalancerMode::Passthrough);
                let unknown = services.is_empty() && !said.has_workload_at(network, address);
                prop_assert!(left_alone || unknown, "the mesh knows {}", address);
            }
            Ok(Route::Direct { workload, service, .. }) => {
                prop_assert_eq!(workload.protocol, Protocol::Tcp, "in plaintext to one that speaks HBONE");
                prop_assert_eq!(&*workload.network, network);
                prop_assert_eq!(service.is_none(), services.is_empty());
            }
            Ok(Route::Tunnel { next_hop, authority, accepted, workload, kind, .. }) => {
                prop_assert!(accepted.contains(&workload.identity().to_string()));
                prop_assert_eq!(&*workload.network, network);
                prop_assert!(workload.addresses.contains(&next_hop.ip()));
                prop_assert_ne!(authority.port(), HBONE_PORT, "a tunnel to a tunnel");
                if kind == HopKind::Waypoint {
                    prop_assert_eq!(authority, Authority::Address(SocketAddr::new(address, wanted.port())));
                } else {
                    prop_assert_eq!(workload.protocol, Protocol::Hbone);
                    prop_assert_eq!(next_hop.port(), HBONE_PORT);
                }
            }
            Ok(Route::DoubleTunnel { authority, workload, service, .. }) => {
                prop_assert_ne!(&*workload.network, network);
                let named = matches!(authority, Authority::Host { host, .. } if host == service.hostname);
                prop_assert!(named, "an address of another network");
            }
            Ok(Route::Resolve(name)) => {
                prop_assert!(name.workload.addresses.is_empty() && !name.hostname.is_empty());
                for resolved in ["203.0.113.1", "::ffff:203.0.113.1"] {
                    let again = name.at(ip(resolved));
                    let tunnelled = name.workload.protocol == Protocol::Hbone;
                    let fits = match again {
                        Ok(Route::Direct { .. }) => !tunnelled,
                        Ok(Route::Tunnel { .. }) | Err(Refusal::ReservedPort(_)) => tunnelled,
                        _ => false,
                    };
                    prop_assert!(fits, "{resolved}");
                }
            }
            Err(Refusal::Loopback) => prop_assert!(address.is_loopback()),
            Err(Refusal::ReservedPort(port)) => prop_assert_eq!(port, HBONE_PORT),
            Err(_) => {
                let known = !services.is_empty() || said.has_workload_at(network, address);
                prop_assert!(known, "the mesh does not know {}", address);
            }
        }
    }

    /// A tunnel reaches nobody but who it arrived at, and no tunnel port.
    #[test]
    fn every_tunnel_ends_where_it_arrived(
        said in said(),
        at in any::<prop::sample::Index>(),
        address in select(PODS.to_vec()),
        asked in prop_oneof![
            wanted().prop_map(|address| address.to_string()),
            (select(NAMES.to_vec()), select(vec![80_u16, 443, HBONE_PORT])).prop_map(|(name, port)| {
                format!("{name}.example:{port}")
            }),
        ],
    ) {
        let mesh = said.mesh();
        let local = &said.workloads[at.index(said.workloads.len())];
        let connected = SocketAddr::new(ip(address), HBONE_PORT);
        let Ok(authority) = asked.parse::<Authority>() else { return Ok(()) };
        let fronts_something = said.workloads.iter().any(|workload| workload.waypoint.is_some())
            || said.services.iter().any(|s| s.waypoint.is_some() || !s.weighted_waypoints.is_empty());
        let own = matches!(authority, Authority::Address(target) if target.ip() == connected.ip());
        let serves = matches!(&authority, Authority::Host { host, .. } if local.services.keys().any(|key| key.hostname == *host));
        match destination(&mesh, local, connected, &authority) {
            Ok(target) => {
                prop_assert_eq!(target.ip(), connected.ip());
                prop_assert_ne!(target.port(), HBONE_PORT);
                prop_assert!(own || serves || fronts_something || local.application_tunnel.is_some());
            }
            Err(_) if own => prop_assert_eq!(authority.port(), HBONE_PORT),
            Err(_) => {}
        }
        let for_others = application_tunnel(&mesh, local, connected, &authority);
        prop_assert!(for_others.is_none() || (!own && local.application_tunnel.is_some()));
    }
}

#[test]
fn the_questions_are_about_something() {
    use proptest::strategy::ValueTree;
    let mut runner = proptest::test_runner::TestRunner::new(config(1));
    let strategy = (said(), wanted());
    let mut kinds = std::collections::BTreeMap::<&str, u32>::new();
    for pick in 0..4000 {
        let (said, destination) = strategy.new_tree(&mut runner).unwrap().current();
        let source = &said.workloads[0];
        let flow = Flow {
            source,
            source_address: socket("10.0.0.9:1").ip(),
            destination,
            network: "",
            pick,
            exclude: &[],
        };
        let kind = match plan(&said.mesh(), &flow) {
            Ok(Route::Passthrough { .. }) => "passthrough",
            Ok(Route::Direct { .. }) => "direct",
            Ok(Route::Tunnel { kind: HopKind::Workload, .. }) => "tunnel",
            Ok(Route::Tunnel { kind: HopKind::Waypoint, .. }) => "waypoint",
            Ok(Route::DoubleTunnel { .. }) => "double",
            Ok(Route::Resolve(_)) => "resolve",
            Err(Refusal::NoHealthyEndpoint { .. }) => "no endpoint",
            Err(Refusal::UnknownServicePort { .. }) => "no port",
            Err(Refusal::NoWaypoint { .. }) => "no waypoint",
            Err(Refusal::NoGateway { .. }) => "no gateway",
            Err(_) => "never",
        };
        *kinds.entry(kind).or_default() += 1;
    }
    assert!(kinds.len() == 11 && kinds.values().all(|count| *count >= 8), "{kinds:?}");
}
