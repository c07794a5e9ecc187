//! The way to a service that was addressed by a virtual address.

use std::net::SocketAddr;
use std::sync::Arc;

use super::endpoint::{Choice, NoChoice, address_of, best, choose};
use super::{Authority, HopKind, Planner, Refusal, Route, Step, Unresolved, accepted, last_leg};
use crate::service::{LoadBalancerMode, Service};
use crate::workload::Workload;

impl<'a> Planner<'a> {
    pub(super) fn plan_service(&mut self, service: &Arc<Service>) -> Result<Route, Refusal> {
        if let Some(waypoint) = self.service_waypoint(service) {
            return self.through_waypoint(waypoint, Some(service));
        }
        if service.load_balancer.mode == LoadBalancerMode::Passthrough {
            self.steps.tell(|| Step::LeftToClient);
            return Ok(Route::Passthrough { destination: self.destination });
        }
        self.endpoint_route(service)
    }

    fn endpoint_route(&mut self, service: &Arc<Service>) -> Result<Route, Refusal> {
        let destination = self.destination;
        if !service.ports.contains_key(&destination.port()) {
            return Err(Refusal::UnknownServicePort { service: service.key(), destination });
        }
        let choice = self.choose(service, destination.port());
        let Choice { workload, port } = choice.map_err(|reason| match reason {
            NoChoice::NoneUsable => Refusal::NoHealthyEndpoint { service: service.key(), destination },
            NoChoice::NoGateway { network } => {
                Refusal::NoGateway { network: network.to_string(), destination }
            }
        })?;
        if *workload.network != *self.flow.network {
            return self.across_networks(service, workload, HopKind::Workload);
        }
        self.speaks(workload);
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

    /// One of a service's endpoints.
    pub(super) fn choose(&mut self, service: &Service, port: u16) -> Result<Choice<'a>, NoChoice> {
        let client = self.client();
        let snapshot = self.snapshot;
        self.steps.tell(|| Step::Endpoints {
            service: service.key(),
            port,
            among: best(snapshot, service, port, client),
        });
        let choice = choose(snapshot, service, port, client, &mut self.draw)?;
        self.steps.tell(|| Step::Endpoint { workload: Arc::clone(&choice.workload.uid), port: choice.port });
        Ok(choice)
    }

    /// The way to a workload of another network: through that network's gateway, to the service by name, for
    /// its addresses mean nothing here.
    pub(super) fn across_networks(
        &mut self,
        service: &Arc<Service>,
        workload: &Arc<Workload>,
        kind: HopKind,
    ) -> Result<Route, Refusal> {
        self.steps.tell(|| Step::OtherNetwork {
            network: Arc::clone(&workload.network),
            gateway: workload.network_gateway.as_ref().map(|gateway| gateway.destination.to_string()),
        });
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
