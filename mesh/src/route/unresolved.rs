//! A destination that is known by name only.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use super::{Refusal, Route, last_leg};
use crate::service::{IpFamilies, Service};
use crate::workload::Workload;

/// A route that lacks an address: resolve [`Self::hostname`], choose with [`Self::choose`], then ask
/// [`Self::at`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Unresolved {
    /// The name to resolve.
    pub hostname: Arc<str>,
    /// The workload's port.
    pub port: u16,
    /// What was addressed; its family is the client's.
    pub destination: SocketAddr,
    /// The workload.
    pub workload: Arc<Workload>,
    /// The service that was addressed, if one was.
    pub service: Option<Arc<Service>>,
    /// The identities of which the peer must show one, should it speak HBONE.
    pub accepted: Vec<String>,
}

impl Unresolved {
    /// The route, once the name is resolved. It never has to be resolved again.
    ///
    /// # Errors
    /// A [`Refusal`] where a workload in the mesh would be asked for the tunnel's own port.
    pub fn at(&self, address: IpAddr) -> Result<Route, Refusal> {
        let destination = SocketAddr::new(address.to_canonical(), self.port);
        last_leg(&self.workload, destination, self.service.as_ref(), self.accepted.clone())
    }

    /// One of the addresses the name resolved to: of the service's only family if it has one, else of the
    /// client's, else any. `pick` is a random number.
    pub fn choose(&self, addresses: &[IpAddr], pick: u64) -> Option<IpAddr> {
        let families = self.service.as_ref().map_or(IpFamilies::Automatic, |service| service.ip_families);
        let v4 = match families {
            IpFamilies::Ipv4Only => true,
            IpFamilies::Ipv6Only => false,
            IpFamilies::Automatic | IpFamilies::Dual => self.destination.is_ipv4(),
        };
        let mut fitting: Vec<IpAddr> = addresses.iter().filter(|ip| ip.is_ipv4() == v4).copied().collect();
        if fitting.is_empty() {
            fitting = addresses.to_vec();
        }
        let index = pick.checked_rem(u64::try_from(fitting.len()).ok()?)?;
        fitting.get(usize::try_from(index).ok()?).copied()
    }
}
