//! The labels of the `istio_tcp_*` metrics, in the order peers write them.
//!
//! Built once a connection; the flag is the one label that can differ between its series. The hash is taken
//! once, too, since there are thirty strings in it.

use std::fmt;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use prometheus_client::encoding::{EncodeLabel, EncodeLabelSet, LabelSetEncoder};

use super::party::{Party, ServiceName};
use super::record::Details;
use crate::error::Flag;

/// Which end of the connection reports.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Reporter {
    /// The client's node.
    Source,
    /// The server's node.
    Destination,
}

impl Reporter {
    fn label(self) -> &'static str {
        match self {
            Self::Source => "source",
            Self::Destination => "destination",
        }
    }
}

/// What is the same in all series of a connection.
#[derive(Debug, PartialEq, Eq, Hash)]
pub(crate) struct Common {
    pub(crate) reporter: Reporter,
    pub(crate) source: Party,
    pub(crate) destination: Party,
    pub(crate) service: ServiceName,
    pub(crate) mutual_tls: bool,
}

impl Common {
    /// What is counted when there is no room for the names.
    pub(super) fn unknown(details: &Details) -> Self {
        let (source, destination) = (Party::default(), Party::default());
        Self { source, destination, service: ServiceName::default(), ..Self::from(details) }
    }
}

/// A label set. Cloning shares it.
#[derive(Debug, Clone)]
pub(crate) struct Labels {
    common: Arc<Common>,
    hash: u64,
    flag: Flag,
}

impl Labels {
    pub(crate) fn new(common: Common) -> Self {
        let mut hasher = DefaultHasher::new();
        common.hash(&mut hasher);
        Self { common: Arc::new(common), hash: hasher.finish(), flag: Flag::None }
    }

    pub(crate) fn flagged(&self, flag: Flag) -> Self {
        Self { flag, ..self.clone() }
    }

    /// Both ends, without their principals: the workloads they are.
    pub(super) fn parties(&self) -> [Party; 2] {
        [&self.common.source, &self.common.destination]
            .map(|party| Party { principal: None, ..party.clone() })
    }

    pub(crate) fn reporter(&self) -> Reporter {
        self.common.reporter
    }
}

impl Hash for Labels {
    fn hash<H: Hasher>(&self, state: &mut H) {
        state.write_u64(self.hash);
        self.flag.hash(state);
    }
}

impl PartialEq for Labels {
    fn eq(&self, other: &Self) -> bool {
        self.flag == other.flag
            && self.hash == other.hash
            && (Arc::ptr_eq(&self.common, &other.common) || self.common == other.common)
    }
}

impl Eq for Labels {}

impl EncodeLabelSet for Labels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        let common = &*self.common;
        let mut put = |key: &str, value: &str| {
            let value = if value.is_empty() { "unknown" } else { value };
            (key, value).encode(encoder.encode_label())
        };
        put("reporter", common.reporter.label())?;
        encode_party(&mut put, &SOURCE, &common.source)?;
        put("destination_service", &common.service.hostname)?;
        put("destination_service_namespace", &common.service.namespace)?;
        put("destination_service_name", &common.service.name)?;
        encode_party(&mut put, &DESTINATION, &common.destination)?;
        put("request_protocol", "tcp")?;
        put("response_flags", self.flag.label())?;
        put("connection_security_policy", if common.mutual_tls { "mutual_tls" } else { "unknown" })?;
        put("source_region", &common.source.region)?;
        put("source_zone", &common.source.zone)?;
        put("destination_region", &common.destination.region)?;
        put("destination_zone", &common.destination.zone)
    }
}

/// The names of a side's labels, in order.
type Names = [&'static str; 8];

const SOURCE: Names = [
    "source_workload",
    "source_canonical_service",
    "source_canonical_revision",
    "source_workload_namespace",
    "source_principal",
    "source_app",
    "source_version",
    "source_cluster",
];

const DESTINATION: Names = [
    "destination_workload",
    "destination_canonical_service",
    "destination_canonical_revision",
    "destination_workload_namespace",
    "destination_principal",
    "destination_app",
    "destination_version",
    "destination_cluster",
];

fn encode_party(
    put: &mut impl FnMut(&str, &str) -> fmt::Result,
    names: &Names,
    party: &Party,
) -> fmt::Result {
    let principal = party.principal.as_ref().map(ToString::to_string).unwrap_or_default();
    let values: [&str; 8] = [
        &party.workload,
        &party.canonical_name,
        &party.canonical_revision,
        &party.namespace,
        &principal,
        &party.canonical_name,
        &party.canonical_revision,
        &party.cluster,
    ];
    names.iter().zip(values).try_for_each(|(name, value)| put(name, value))
}

/// The labels of connections that needed a name to be resolved: as many as there are applications and such names in the mesh.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct OnDemand {
    pub(crate) source: Party,
    pub(crate) hostname: Arc<str>,
}

impl EncodeLabelSet for OnDemand {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        let mut put = |key: &str, value: &str| {
            let value = if value.is_empty() { "unknown" } else { value };
            (key, value).encode(encoder.encode_label())
        };
        encode_party(&mut put, &SOURCE, &self.source)?;
        put("hostname", &self.hostname)
    }
}

/// The label of the gauge of open sockets.
impl EncodeLabelSet for Reporter {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        ("reporter", self.label()).encode(encoder.encode_label())
    }
}
