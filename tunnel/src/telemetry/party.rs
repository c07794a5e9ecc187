//! One side of a connection, as labels name it.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use mesh::{Identity, Service, Workload};

use crate::hbone::baggage::Baggage;

/// A workload at one end, known from the control plane or by what it says of itself.
///
/// Two are equal if their labels are.
#[derive(Debug, Clone, Default)]
pub(crate) struct Party {
    /// The pod's name, for the log only.
    pub(crate) pod: Arc<str>,
    pub(crate) workload: Arc<str>,
    pub(crate) namespace: Arc<str>,
    pub(crate) canonical_name: Arc<str>,
    pub(crate) canonical_revision: Arc<str>,
    pub(crate) cluster: Arc<str>,
    pub(crate) region: Arc<str>,
    pub(crate) zone: Arc<str>,
    /// Its identity where that is proven, or where the metric names it anyway.
    pub(crate) principal: Option<Identity>,
}

/// The service a connection was addressed to.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct ServiceName {
    pub(crate) hostname: Arc<str>,
    pub(crate) namespace: Arc<str>,
    pub(crate) name: Arc<str>,
}

impl PartialEq for Party {
    fn eq(&self, other: &Self) -> bool {
        self.labels() == other.labels()
    }
}

impl Eq for Party {}

impl Hash for Party {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.labels().hash(state);
    }
}

impl Party {
    /// What the metrics say of it: pods of one workload share that.
    fn labels(&self) -> ([&Arc<str>; 7], &Option<Identity>) {
        let names = [
            &self.workload,
            &self.namespace,
            &self.canonical_name,
            &self.canonical_revision,
            &self.cluster,
            &self.region,
            &self.zone,
        ];
        (names, &self.principal)
    }

    /// Whether nothing is known of it.
    pub(super) fn is_unknown(&self) -> bool {
        *self == Self::default()
    }

    pub(crate) fn of(workload: &Workload, principal: Option<Identity>) -> Self {
        Self {
            pod: Arc::clone(&workload.name),
            workload: Arc::clone(&workload.workload_name),
            namespace: Arc::clone(&workload.namespace),
            canonical_name: Arc::clone(&workload.canonical_name),
            canonical_revision: Arc::clone(&workload.canonical_revision),
            cluster: Arc::clone(&workload.cluster_id),
            region: Arc::clone(&workload.locality.region),
            zone: Arc::clone(&workload.locality.zone),
            principal,
        }
    }

    /// A client that only its own words and its certificate describe.
    pub(crate) fn claimed(baggage: &Baggage, identity: &Identity) -> Self {
        Self {
            pod: baggage.workload.as_str().into(),
            workload: baggage.workload.as_str().into(),
            namespace: Arc::clone(identity.namespace()),
            canonical_name: baggage.service.as_str().into(),
            canonical_revision: baggage.revision.as_str().into(),
            cluster: baggage.cluster.as_str().into(),
            region: baggage.region.as_str().into(),
            zone: baggage.zone.as_str().into(),
            principal: Some(identity.clone()),
        }
    }
}

impl From<&Service> for ServiceName {
    fn from(service: &Service) -> Self {
        Self {
            hostname: Arc::clone(&service.hostname),
            namespace: Arc::clone(&service.namespace),
            name: Arc::clone(&service.name),
        }
    }
}
