//! The way to a service that was addressed by a virtual address.

use std::net::SocketAddr;
use std::sync::Arc;

use super::endpoint::{Choice, NoChoice, address_of, choose};
use super::{Authority, HopKind, Planner, Refusal, Route, Unresolved, accepted, last_leg};
use crate::service::{LoadBalancerMode, Service};
use crate::workload::Workload;

impl Planner<'_> {
    pub(super) fn plan_service(&mut self, service: &Arc<Service>) -> Result<Route, Refusal> {
        if let Some(waypoint) = self.service_waypoint(service) {
            return self.through_waypoint(waypoint, Some(service));
        }
        if service.load_balancer.mode == LoadBalancerMode::Passthrough {
            return Ok(Route::Passthrough { destination: self.destination });
        }
        self.endpoint_route(service)
    }

    fn endpoint_route(&mut self, service: &Arc<Service>) -> Result<Route, Refusal> {
        let destination = self.destination;
        if !service.ports.contains_key(&destination.port()) {
            return Err(Refusal::UnknownServicePort { service: service.key(), destination });
        }
        let choice = choose(self.snapshot, service, destination.port(), self.client(), &mut self.draw);
        let Choice { workload, port } = choice.map_err(|reason| match reason {
            NoChoice::NoneUsable => Refusal::NoHealthyEndpoint { service: service.key(), destination },
            NoChoice::NoGateway { network } => {
                Refusal::NoGateway { network: network.to_string(), destination }
            }
        })?;
        if *workload.network != *self.flow.network {
            return self.across_networks(service, workload, HopKind::Workload);
        }
        let accepted = accepted(workload, Some(service));
        match address_of(workload, destination.ip(), service.ip_families) {
            Some(address) => last_leg(workload, SocketAddr::new(address, port), Some(service), accepted),
            None => Ok(Route::Resolve(Unresolved {
                hostname: Arc::clone(&workload.hostname),
                port,
                destination,
                workload: Arc::clone(workload),
                service: Some(Arc::clone(service)),
                accepted,
            })),
        }
    }

    /// The way to a workload of another network: through that network's gateway, to the service by name, for
    /// its addresses mean nothing here.
    pub(super) fn across_networks(
        &mut self,
        service: &Arc<Service>,
        workload: &Arc<Workload>,
        kind: HopKind,
    ) -> Result<Route, Refusal> {
        let gateway = workload.network_gateway.as_ref().and_then(|gateway| self.gateway(gateway));
        let Some(gateway) = gateway else {
            let network = workload.network.to_string();
            return Err(Refusal::NoGateway { network, destination: self.destination });
        };
        Ok(Route::DoubleTunnel {
            next_hop: gateway.next_hop,
            authority: Authority::Host { host: Arc::clone(&service.hostname), port: self.destination.port() },
            accepted: gateway.accepted,
            inner_accepted: service.subject_alt_names.iter().map(ToString::to_string).collect(),
            gateway: gateway.workload,
            workload: Arc::clone(workload),
            service: Arc::clone(service),
            kind,
        })
    }
}
