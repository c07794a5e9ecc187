//! Which endpoint of a service, on which port, at which address.

use std::net::IpAddr;
use std::sync::Arc;

use super::draw::Draw;
use crate::service::{HealthPolicy, IpFamilies, LoadBalancer, LoadBalancerMode, Scope, Service};
use crate::snapshot::{Endpoint, Snapshot};
use crate::workload::{Health, PortMap, Workload};

/// Who chooses: what the endpoints' places are compared with.
#[derive(Clone, Copy, Debug)]
pub(super) struct Client<'a> {
    pub(super) workload: &'a Workload,
    pub(super) network: &'a str,
    /// Uids of endpoints that are not to be chosen.
    pub(super) exclude: &'a [Arc<str>],
}

/// An endpoint that was chosen, and its port.
#[derive(Debug)]
pub(super) struct Choice<'a> {
    pub(super) workload: &'a Arc<Workload>,
    pub(super) port: u16,
}

/// Why there is none to choose.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum NoChoice {
    /// None that is healthy, has the port and is where the service wants it.
    NoneUsable,
    /// There would be, on this network, but no gateway leads there.
    NoGateway { network: Arc<str> },
}

/// Chooses among the endpoints of a service that have `port`: those of the best rank, at random by capacity.
pub(super) fn choose<'a>(
    snapshot: &'a Snapshot,
    service: &Service,
    port: u16,
    client: Client<'_>,
    draw: &mut Draw,
) -> Result<Choice<'a>, NoChoice> {
    let key = service.key();
    let usable = || snapshot.endpoints(&key).filter_map(|endpoint| usable(service, &endpoint, port, client));
    let (mut best, mut capacity, mut count) = (0_usize, 0_u64, 0_u64);
    for (rank, workload, _) in usable() {
        if rank > best {
            (best, capacity, count) = (rank, 0, 0);
        }
        if rank == best {
            capacity += u64::from(workload.capacity);
            count += 1;
        }
    }
    // Capacities that are all zero say nothing about preference.
    let weigh = |workload: &Workload| if capacity == 0 { 1 } else { u64::from(workload.capacity) };
    let mut left = draw.below(if capacity == 0 { count } else { capacity });
    for (rank, workload, port) in usable() {
        if rank != best {
            continue;
        }
        match left.checked_sub(weigh(workload)) {
            Some(rest) => left = rest,
            None => return Ok(Choice { workload, port }),
        }
    }
    let cut_off = snapshot
        .endpoints(&key)
        .filter(|endpoint| judge(service, endpoint, port, client).is_some())
        .filter(|endpoint| !is_reachable(endpoint.workload, client))
        .map(|endpoint| &endpoint.workload.network)
        .find(|network| ***network != *client.network);
    match cut_off {
        Some(network) => Err(NoChoice::NoGateway { network: Arc::clone(network) }),
        None => Err(NoChoice::NoneUsable),
    }
}

/// The uids of the endpoints that [`choose`] chooses from: all of the best rank that may be drawn.
pub(super) fn best(snapshot: &Snapshot, service: &Service, port: u16, client: Client<'_>) -> Vec<Arc<str>> {
    let key = service.key();
    let usable: Vec<_> =
        snapshot.endpoints(&key).filter_map(|endpoint| usable(service, &endpoint, port, client)).collect();
    let rank = usable.iter().map(|(rank, ..)| *rank).max().unwrap_or_default();
    let of_rank = || usable.iter().filter(|(of, ..)| *of == rank).map(|(_, workload, _)| workload);
    let weighs = of_rank().any(|workload| workload.capacity > 0);
    of_rank()
        .filter(|workload| !weighs || workload.capacity > 0)
        .map(|workload| Arc::clone(&workload.uid))
        .collect()
}

/// An endpoint that may be chosen: its rank, its workload and its port.
fn usable<'a>(
    service: &Service,
    endpoint: &Endpoint<'a>,
    port: u16,
    client: Client<'_>,
) -> Option<(usize, &'a Arc<Workload>, u16)> {
    let (rank, port) = judge(service, endpoint, port, client)?;
    let workload = endpoint.workload;
    let wanted = is_reachable(workload, client) && !client.exclude.contains(&workload.uid);
    wanted.then_some((rank, workload, port))
}

/// The port of an endpoint for a service port: its own entry, else the service's, else the same port where it
/// lists the port without a target.
pub(crate) fn target_port(service: &PortMap, endpoint: &PortMap, port: u16) -> Option<u16> {
    let named = |ports: &PortMap| ports.get(&port).copied().filter(|target| *target != 0);
    named(endpoint).or_else(|| named(service)).or_else(|| endpoint.contains_key(&port).then_some(port))
}

/// The address at which to reach a workload: the one that was asked for if it owns that, else one of the
/// service's only family, else one of the family that was asked for, else any.
pub(super) fn address_of(workload: &Workload, asked: IpAddr, families: IpFamilies) -> Option<IpAddr> {
    if workload.addresses.contains(&asked) {
        return Some(asked);
    }
    let v4 = match families {
        IpFamilies::Ipv4Only => true,
        IpFamilies::Ipv6Only => false,
        IpFamilies::Automatic | IpFamilies::Dual => asked.is_ipv4(),
    };
    let fitting = workload.addresses.iter().find(|address| address.is_ipv4() == v4);
    fitting.or_else(|| workload.addresses.first()).copied()
}

/// The rank of an endpoint and its port; none if it is not ready, lacks the port or is in the wrong place.
fn judge(service: &Service, endpoint: &Endpoint<'_>, port: u16, client: Client<'_>) -> Option<(usize, u16)> {
    let ready = endpoint.workload.status == Health::Healthy
        || service.load_balancer.health_policy == HealthPolicy::AllowAll;
    if !ready {
        return None;
    }
    let port = target_port(&service.ports, endpoint.ports, port)?;
    Some((rank(&service.load_balancer, endpoint.workload, client)?, port))
}

fn rank(balancer: &LoadBalancer, workload: &Workload, client: Client<'_>) -> Option<usize> {
    let matches = |scope: &Scope| {
        let (ours, theirs) = (&client.workload.locality, &workload.locality);
        match scope {
            Scope::Region => ours.region == theirs.region,
            Scope::Zone => ours.zone == theirs.zone,
            Scope::Subzone => ours.subzone == theirs.subzone,
            Scope::Node => client.workload.node == workload.node,
            Scope::Cluster => client.workload.cluster_id == workload.cluster_id,
            Scope::Network => *client.network == *workload.network,
        }
    };
    match balancer.mode {
        LoadBalancerMode::Standard | LoadBalancerMode::Passthrough => Some(0),
        LoadBalancerMode::Strict => balancer.preferences.iter().all(matches).then_some(0),
        LoadBalancerMode::Failover => {
            let leading = |scopes: &[Scope]| scopes.iter().take_while(|scope| matches(scope)).count();
            Some(match balancer.preferences.as_slice() {
                // A leading network that differs is passed over, so that what follows still tells the endpoints
                // of other networks apart; but none of them, however near, comes before one of our own.
                all @ [Scope::Network, rest @ ..] if matches(&Scope::Network) => all.len() + leading(rest),
                [Scope::Network, rest @ ..] => leading(rest),
                all => leading(all),
            })
        }
    }
}

/// Whether there is a way: on our network an address or a name, on another one a gateway.
fn is_reachable(workload: &Workload, client: Client<'_>) -> bool {
    if *workload.network == *client.network {
        !workload.addresses.is_empty() || !workload.hostname.is_empty()
    } else {
        workload.network_gateway.is_some()
    }
}
