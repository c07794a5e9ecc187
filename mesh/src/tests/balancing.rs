//! Which endpoints of a service are taken, and how often: on services made up at random.

use std::collections::BTreeMap;
use std::sync::Arc;

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::sample::select;

use super::policies::config;
use crate::service::{HealthPolicy, LoadBalancer, LoadBalancerMode, Scope};
use crate::testing::{gateway_by_address, ip, pod, service, snapshot, socket};
use crate::workload::{Health, Locality};
use crate::{Flow, Refusal, Route, Service, Snapshot, Workload, plan};

fn place() -> impl Strategy<Value = Workload> {
    let part = || select(vec!["1", "2"]);
    let locality = (part(), part(), part()).prop_map(|(region, zone, subzone)| {
        Locality { region: region.into(), zone: zone.into(), subzone: subzone.into() }.into()
    });
    (locality, part(), part(), select(vec!["", "", "east"])).prop_map(|(locality, node, cluster, network)| {
        Workload {
            locality,
            node: node.into(),
            cluster_id: cluster.into(),
            network: network.into(),
            ..Workload::default()
        }
    })
}

fn endpoint() -> impl Strategy<Value = Workload> {
    let health = select(vec![Health::Healthy, Health::Healthy, Health::Unhealthy]);
    (place(), health, 0_u32..4, any::<bool>()).prop_map(|(place, status, capacity, gateway)| Workload {
        status,
        capacity,
        network_gateway: gateway.then(|| gateway_by_address("east/192.0.2.9").into()),
        ..place
    })
}

fn balancer() -> impl Strategy<Value = LoadBalancer> {
    let all = vec![Scope::Region, Scope::Zone, Scope::Subzone, Scope::Node, Scope::Cluster, Scope::Network];
    let network_first = vec![Scope::Network, Scope::Region, Scope::Zone, Scope::Subzone, Scope::Node];
    let orders = prop_oneof![Just(all).prop_shuffle(), Just(network_first)];
    let preferences = (orders, 0..6_usize).prop_map(|(mut order, length)| {
        order.truncate(length);
        order
    });
    let mode = select(vec![LoadBalancerMode::Standard, LoadBalancerMode::Strict, LoadBalancerMode::Failover]);
    let health = select(vec![HealthPolicy::OnlyHealthy, HealthPolicy::AllowAll]);
    (preferences, mode, health).prop_map(|(preferences, mode, health_policy)| LoadBalancer {
        preferences,
        mode,
        health_policy,
    })
}

/// A service of these endpoints, each of which has the port 80, at 10.1.0.1.
fn mesh(balancer: LoadBalancer, endpoints: &[Workload]) -> Snapshot {
    let endpoints = endpoints.iter().enumerate().map(|(n, like)| {
        let named = pod(&format!("e{n}"), &[&format!("10.0.1.{n}")]);
        let (uid, name, addresses, protocol) = (named.uid, named.name, named.addresses, named.protocol);
        Workload { uid, name, addresses, protocol, ..like.clone() }.serving("web", [(80, 8080)])
    });
    let gateway = Workload { network: "east".into(), ..pod("gateway", &["192.0.2.9"]) };
    let web = Service { load_balancer: balancer, ..service("web", &["/10.1.0.1"]) };
    snapshot(endpoints.chain([gateway]), [web], [])
}

/// The number of the endpoint that is taken.
fn taken(mesh: &Snapshot, client: &Workload, pick: u64, exclude: &[Arc<str>]) -> Result<usize, Refusal> {
    let destination = socket("10.1.0.1:80");
    let flow =
        Flow { source: client, source_address: ip("10.0.0.1"), destination, network: "", pick, exclude };
    match plan(mesh, &flow)? {
        Route::Tunnel { workload, .. } | Route::DoubleTunnel { workload, .. } => {
            Ok(workload.name.trim_start_matches('e').parse().unwrap())
        }
        other => panic!("{other:?}"),
    }
}

fn shares(scope: Scope, client: &Workload, endpoint: &Workload) -> bool {
    match scope {
        Scope::Region => client.locality.region == endpoint.locality.region,
        Scope::Zone => client.locality.zone == endpoint.locality.zone,
        Scope::Subzone => client.locality.subzone == endpoint.locality.subzone,
        Scope::Node => client.node == endpoint.node,
        Scope::Cluster => client.cluster_id == endpoint.cluster_id,
        Scope::Network => endpoint.network.is_empty(),
    }
}

/// Whether no gateway leads to it.
fn cut_off(endpoint: &Workload) -> bool {
    !endpoint.network.is_empty() && endpoint.network_gateway.is_none()
}

/// How good an endpoint is for a client, to be compared from the left; none if it may not be taken. Written another way
/// than the real one: what is shared, preference by preference, and after the first that is not shared, nothing.
fn merit(balancer: &LoadBalancer, client: &Workload, endpoint: &Workload) -> Option<Vec<bool>> {
    let healthy = endpoint.status == Health::Healthy || balancer.health_policy == HealthPolicy::AllowAll;
    if !healthy || cut_off(endpoint) {
        return None;
    }
    let shared: Vec<bool> =
        balancer.preferences.iter().map(|scope| shares(*scope, client, endpoint)).collect();
    match balancer.mode {
        LoadBalancerMode::Strict => (!shared.contains(&false)).then(Vec::new),
        LoadBalancerMode::Failover => {
            let network_first = balancer.preferences.first() == Some(&Scope::Network);
            let mut lost = false;
            let counted = shared.iter().enumerate().map(|(n, is_shared)| {
                let is_shared = *is_shared && !lost;
                let passed_over = n == 0 && network_first;
                lost |= !is_shared && !passed_over;
                is_shared
            });
            Some(counted.collect())
        }
        LoadBalancerMode::Standard | LoadBalancerMode::Passthrough => Some(Vec::new()),
    }
}

proptest! {
    #![proptest_config(config(2000))]

    /// Never one that was tried in vain, never one of less merit while there is a better one, never an unhealthy one unless
    /// that is allowed, never a refusal while there is one to take, and one of no capacity only where none has any.
    #[test]
    fn only_the_best_endpoints_are_taken(
        balancer in balancer(),
        client in place(),
        endpoints in vec(endpoint(), 0..7),
        tried in vec(0_usize..7, 0..4),
        picks in vec(any::<u64>(), 16),
    ) {
        let client = Workload { network: "".into(), ..client };
        let mesh = mesh(balancer.clone(), &endpoints);
        let uid = |n: &usize| pod(&format!("e{n}"), &[]).uid;
        let exclude: Vec<_> = tried.iter().map(uid).collect();
        let merits: Vec<_> = endpoints
            .iter()
            .enumerate()
            .map(|(n, e)| merit(&balancer, &client, e).filter(|_| !tried.contains(&n)))
            .collect();
        let best = merits.iter().flatten().max();
        let weighty = endpoints
            .iter()
            .zip(&merits)
            .any(|(e, merit)| e.capacity > 0 && merit.is_some() && merit.as_ref() == best);
        for pick in picks {
            match taken(&mesh, &client, pick, &exclude) {
                Ok(n) => {
                    prop_assert_eq!(merits[n].as_ref(), best, "endpoint {}", n);
                    prop_assert!(best.is_some());
                    prop_assert!(endpoints[n].capacity > 0 || !weighty, "endpoint {} weighs nothing", n);
                }
                Err(Refusal::NoGateway { .. }) => prop_assert!(best.is_none() && endpoints.iter().any(cut_off)),
                Err(refusal) => prop_assert!(best.is_none(), "{}", refusal),
            }
        }
    }
}

/// Pearson's statistic of what was counted against what was to be expected.
fn chi_square(counts: &BTreeMap<usize, u32>, weights: &[u32], draws: u32) -> f64 {
    let total: u32 = weights.iter().sum();
    weights
        .iter()
        .enumerate()
        .filter(|(_, weight)| **weight > 0)
        .map(|(n, weight)| {
            let expected = f64::from(draws) * f64::from(*weight) / f64::from(total);
            let off = f64::from(counts.get(&n).copied().unwrap_or(0)) - expected;
            off * off / expected
        })
        .sum()
}

proptest! {
    #![proptest_config(config(48))]

    /// The share of each is its capacity's, within what chance allows. Of a chi-square variable X of d degrees of freedom,
    /// P(X > d + 2 sqrt(dx) + 2x) < exp(-x) (Laurent and Massart, Annals of Statistics 28(5), lemma 1): with x = 20, one
    /// case in 500 million fails by chance, and the cases are always the same ones.
    #[test]
    fn endpoints_are_taken_in_proportion_to_capacity(
        weights in vec(1_u32..12, 2..8),
        idle in 0_usize..3,
        seed in any::<u64>(),
    ) {
        const DRAWS: u32 = 6000;
        let with = |capacity| Workload { capacity, ..Workload::default() };
        let endpoints: Vec<_> =
            weights.iter().copied().chain(std::iter::repeat_n(0, idle)).map(with).collect();
        let mesh = mesh(LoadBalancer::default(), &endpoints);
        let client = pod("client", &["10.0.0.1"]);
        let mut counts = BTreeMap::new();
        // Draws one after the other, as those of a counter: the worst that the caller's generator could do.
        for n in 0..u64::from(DRAWS) {
            *counts.entry(taken(&mesh, &client, seed.wrapping_add(n), &[]).unwrap()).or_default() += 1;
        }
        let freedom = (weights.len() - 1) as f64;
        let bound = freedom + 2.0 * (freedom * 20.0).sqrt() + 2.0 * 20.0;
        prop_assert!(counts.keys().all(|n| *n < weights.len()), "{:?}", counts);
        let statistic = chi_square(&counts, &weights, DRAWS);
        prop_assert!(statistic < bound, "{} of at most {}: {:?}", statistic, bound, counts);
    }
}

#[test]
fn the_statistic_tells_even_from_skewed() {
    let even = BTreeMap::from([(0, 2510), (1, 2490)]);
    let skewed = BTreeMap::from([(0, 2800), (1, 2200)]);
    assert!(chi_square(&even, &[1, 1], 5000) < 1.0);
    assert!(chi_square(&skewed, &[1, 1], 5000) > 50.0);
}
