//! Waypoints: which one is in front of a service, and the way to it.

use std::sync::Arc;

use super::{Authority, HopKind, Planner, Refusal, Route, Step};
use crate::service::Service;
use crate::workload::GatewayAddress;

impl Planner<'_> {
    /// The waypoint in front of a service, sampled by weight; none if there is none or the source is one.
    pub(super) fn service_waypoint<'s>(&mut self, service: &'s Service) -> Option<&'s GatewayAddress> {
        let weighted = || service.weighted_waypoints.iter().filter(|waypoint| waypoint.weight > 0);
        let own = service.waypoint.as_deref();
        let mut all = own.into_iter().chain(weighted().map(|waypoint| &waypoint.destination));
        if all.any(|waypoint| self.comes_from(waypoint)) {
            self.steps.tell(|| Step::FromWaypoint);
            return None;
        }
        let mut left = match weighted().map(|waypoint| u64::from(waypoint.weight)).sum() {
            0 => return own,
            total => self.draw.below(total),
        };
        for waypoint in weighted() {
            match left.checked_sub(u64::from(waypoint.weight)) {
                Some(rest) => left = rest,
                None => return Some(&waypoint.destination),
            }
        }
        own
    }

    /// The way through a waypoint, which is asked for the original destination. It takes HBONE whatever its
    /// workload says about its protocol.
    pub(super) fn through_waypoint(
        &mut self,
        waypoint: &GatewayAddress,
        service: Option<&Arc<Service>>,
    ) -> Result<Route, Refusal> {
        self.steps.tell(|| Step::Waypoint(waypoint.destination.to_string()));
        let refusal =
            Refusal::NoWaypoint { waypoint: waypoint.destination.to_string(), destination: self.destination };
        let Some((workload, port, of)) = self.gateway_workload(waypoint) else { return Err(refusal) };
        if *workload.network != *self.flow.network {
            return match service {
                Some(service) => self.across_networks(service, &workload, HopKind::Waypoint),
                None => Err(Refusal::NoGateway {
                    network: workload.network.to_string(),
                    destination: self.destination,
                }),
            };
        }
        let gateway = self.dialled(workload, port, of.as_ref()).ok_or(refusal)?;
        Ok(Route::Tunnel {
            next_hop: gateway.next_hop,
            authority: Authority::Address(self.destination),
            accepted: gateway.accepted,
            workload: gateway.workload,
            service: service.cloned(),
            kind: HopKind::Waypoint,
        })
    }
}
