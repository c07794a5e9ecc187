//! Finds the workloads behind the address of a waypoint or of a network gateway.

use std::net::SocketAddr;
use std::sync::Arc;

use super::endpoint::address_of;
use super::{Planner, accepted};
use crate::service::{IpFamilies, Service};
use crate::snapshot::Snapshot;
use crate::workload::{GatewayAddress, GatewayDestination, Workload};

/// One workload of a gateway, and where to dial it.
pub(super) struct Gateway {
    pub(super) next_hop: SocketAddr,
    pub(super) workload: Arc<Workload>,
    /// The identities that it may show.
    pub(super) accepted: Vec<String>,
}

/// What the address of a gateway means.
enum Target<'a> {
    Service(&'a Arc<Service>),
    Workload(&'a Arc<Workload>),
}

impl Planner<'_> {
    /// A workload of a gateway, on whatever network it is.
    pub(super) fn gateway_workload(
        &mut self,
        gateway: &GatewayAddress,
    ) -> Option<(Arc<Workload>, u16, Option<Arc<Service>>)> {
        let port = gateway.hbone_mtls_port;
        match target(self.snapshot, gateway, &self.flow.source.namespace)? {
            Target::Workload(workload) => Some((Arc::clone(workload), port, None)),
            Target::Service(service) => {
                let choice = self.choose(service, port).ok()?;
                Some((Arc::clone(choice.workload), choice.port, Some(Arc::clone(service))))
            }
        }
    }

    /// A workload of a gateway, and where to dial it directly.
    pub(super) fn gateway(&mut self, gateway: &GatewayAddress) -> Option<Gateway> {
        let (workload, port, service) = self.gateway_workload(gateway)?;
        self.dialled(workload, port, service.as_ref())
    }

    /// Where to dial a gateway's workload directly.
    pub(super) fn dialled(
        &self,
        workload: Arc<Workload>,
        port: u16,
        service: Option<&Arc<Service>>,
    ) -> Option<Gateway> {
        let families = service.map_or(IpFamilies::Automatic, |service| service.ip_families);
        let address = address_of(&workload, self.destination.ip(), families)?;
        let accepted = accepted(&workload, service);
        Some(Gateway { next_hop: SocketAddr::new(address, port), workload, accepted })
    }

    /// Whether the source is that gateway: has the identity and the address of one of its workloads.
    pub(super) fn comes_from(&self, gateway: &GatewayAddress) -> bool {
        let source = self.flow.source;
        let address = self.flow.source_address.to_canonical();
        members(self.snapshot, gateway, &source.namespace).iter().any(|member| {
            member.namespace == source.namespace
                && member.service_account == source.service_account
                && member.trust_domain == source.trust_domain
                && member.network == source.network
                && member.addresses.contains(&address)
        })
    }
}

/// Every workload of a gateway.
pub(crate) fn members<'a>(
    snapshot: &'a Snapshot,
    gateway: &GatewayAddress,
    client_namespace: &str,
) -> Vec<&'a Arc<Workload>> {
    match target(snapshot, gateway, client_namespace) {
        Some(Target::Workload(workload)) => vec![workload],
        Some(Target::Service(service)) => {
            snapshot.endpoints(&service.key()).map(|endpoint| endpoint.workload).collect()
        }
        None => Vec::new(),
    }
}

fn target<'a>(
    snapshot: &'a Snapshot,
    gateway: &GatewayAddress,
    client_namespace: &str,
) -> Option<Target<'a>> {
    match &gateway.destination {
        GatewayDestination::Hostname(name) => snapshot.service(name).map(Target::Service),
        GatewayDestination::Address(address) => snapshot
            .service_by_vip(address, client_namespace)
            .map(Target::Service)
            .or_else(|| snapshot.workload_by_address(address).map(Target::Workload)),
    }
}
