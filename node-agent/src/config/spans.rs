//! Spans of connections: where they are exported to, and which.
//!
//! The variables are those of OpenTelemetry, and mean what its specification says; what of it is not supported is refused where
//! it can be written, so that nobody waits for spans that never come.

use control::grpc::{Address, Endpoint, Headers, RootsOfTrust};
use percent_encoding::percent_decode_str;

use super::endpoint::{ADDRESS, ROOTS};
use super::kinds::{self, NAME};
use super::node::Node;
use super::reader::Reader;
use super::setting::{Kind, Section, Setting};
use crate::spans::Sampler;

/// The name of the service where the user has not said another.
const SERVICE: &str = "culvert";
/// The longest queue; each span in it takes about 1 KiB.
const LONGEST_QUEUE: usize = 1_000_000;

const PROTOCOL: Kind<()> = Kind { value: "grpc", allowed: "grpc", parse: protocol };
const HEADERS: Kind<Headers> = Kind {
    value: "NAME=VALUE,…",
    allowed: "names and values of headers with = between, values percent-encoded, such as authorization=Bearer%20abc; empty for none",
    parse: headers,
};
const ATTRIBUTES: Kind<Vec<(String, String)>> = Kind {
    value: "NAME=VALUE,…",
    allowed: "names and values with = between, values percent-encoded, such as deployment.environment.name=production; empty for none",
    parse: pairs,
};
const SAMPLER: Kind<(bool, Base)> = Kind {
    value: "SAMPLER",
    allowed: "always_on, always_off, traceidratio, parentbased_always_on, parentbased_always_off or parentbased_traceidratio",
    parse: sampler,
};
const RATIO: Kind<f64> = Kind { value: "RATIO", allowed: "a number from 0 to 1", parse: ratio };
const QUEUE: Kind<usize> =
    Kind { value: "NUMBER", allowed: "a whole number from 1 to 1000000", parse: queue };

static ENDPOINT: Setting<Option<Address>> = Setting::new(
    ("otlp-endpoint", "OTEL_EXPORTER_OTLP_ENDPOINT"),
    "",
    ADDRESS,
    "The collector that spans of connections are exported to, by OTLP over gRPC. Empty: there are none. \
     `OTEL_EXPORTER_OTLP_TRACES_ENDPOINT` says the same, and counts where both are set.",
)
.or("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT");
static OTLP_PROTOCOL: Setting<()> = Setting::new(
    ("otlp-protocol", "OTEL_EXPORTER_OTLP_PROTOCOL"),
    "grpc",
    PROTOCOL,
    "The protocol of the collector; there is one. `OTEL_EXPORTER_OTLP_TRACES_PROTOCOL` says the same, and counts where both are set.",
)
.or("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL");
static CERTIFICATE: Setting<RootsOfTrust> = Setting::new(
    ("otlp-certificate", "OTEL_EXPORTER_OTLP_CERTIFICATE"),
    "SYSTEM",
    ROOTS,
    "What the certificate of the collector must chain to. A file is read again for each connection. \
     `OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE` says the same, and counts where both are set.",
)
.or("OTEL_EXPORTER_OTLP_TRACES_CERTIFICATE");
static OTLP_HEADERS: Setting<Headers> = Setting::new(
    ("otlp-headers", "OTEL_EXPORTER_OTLP_HEADERS"),
    "",
    HEADERS,
    "Headers that are sent to the collector with each request; never shown. \
     `OTEL_EXPORTER_OTLP_TRACES_HEADERS` says the same, and counts where both are set.",
)
.or("OTEL_EXPORTER_OTLP_TRACES_HEADERS")
.secret(is_said);
static SERVICE_NAME: Setting<String> = Setting::new(
    ("otel-service-name", "OTEL_SERVICE_NAME"),
    "",
    NAME,
    "The service that spans are of. Empty: the `service.name` of the resource attributes, or else culvert.",
);
static RESOURCE_ATTRIBUTES: Setting<Vec<(String, String)>> = Setting::new(
    ("otel-resource-attributes", "OTEL_RESOURCE_ATTRIBUTES"),
    "",
    ATTRIBUTES,
    "What else is said of the agent with its spans; goes before what the agent says of node, cluster and pod.",
);
static TRACES_SAMPLER: Setting<(bool, Base)> = Setting::new(
    ("traces-sampler", "OTEL_TRACES_SAMPLER"),
    "parentbased_always_on",
    SAMPLER,
    "Which connections have a span. Those that begin with parentbased follow what was decided where the trace comes from, if \
     it comes from anywhere.",
);
static SAMPLER_ARG: Setting<f64> = Setting::new(
    ("traces-sampler-arg", "OTEL_TRACES_SAMPLER_ARG"),
    "1",
    RATIO,
    "The share of traces that the samplers with traceidratio take.",
);
static QUEUE_SIZE: Setting<usize> = Setting::new(
    ("otlp-queue", "OTEL_BSP_MAX_QUEUE_SIZE"),
    "2048",
    QUEUE,
    "Spans that may wait for the collector; those beyond are dropped and counted. Each takes about 1 KiB.",
);

pub(super) static SECTION: Section = Section {
    title: "Spans",
    settings: &[
        &ENDPOINT,
        &OTLP_PROTOCOL,
        &CERTIFICATE,
        &OTLP_HEADERS,
        &SERVICE_NAME,
        &RESOURCE_ATTRIBUTES,
        &TRACES_SAMPLER,
        &SAMPLER_ARG,
        &QUEUE_SIZE,
    ],
    families: &[],
};

/// Where spans go.
#[derive(Clone, Debug)]
pub(crate) struct Spans {
    /// The collector.
    pub(crate) endpoint: Endpoint,
    /// What is said of the agent with them.
    pub(crate) resource: Vec<(String, String)>,
    /// Which connections have one.
    pub(crate) sampler: Sampler,
    /// How many may wait.
    pub(crate) queue: usize,
}

/// What decides where nobody has decided yet.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Base {
    On,
    Off,
    Ratio,
}

/// Reads where spans go; within, none if they go nowhere.
pub(super) fn read(reader: &mut Reader<'_>, node: &Node) -> Option<Option<Spans>> {
    let (address, roots) = (reader.read(&ENDPOINT)?, reader.read(&CERTIFICATE)?);
    reader.read(&OTLP_PROTOCOL)?;
    let (headers, service) = (reader.read(&OTLP_HEADERS)?, reader.read(&SERVICE_NAME)?);
    let attributes = reader.read(&RESOURCE_ATTRIBUTES)?;
    let (sampler, ratio) = (reader.read(&TRACES_SAMPLER)?, reader.read(&SAMPLER_ARG)?);
    let queue = reader.read(&QUEUE_SIZE)?;
    let Some(address) = address else { return Some(None) };
    let endpoint = Endpoint { address, roots, server_name: None, token: None, headers, cluster_id: None };
    let (follows_parent, base) = sampler;
    let ratio = match base {
        Base::On => 1.0,
        Base::Off => 0.0,
        Base::Ratio => ratio,
    };
    let resource = resource(node, service, attributes);
    Some(Some(Spans { endpoint, resource, sampler: Sampler::new(follows_parent, ratio), queue }))
}

/// What is said of the agent: the user's word first.
fn resource(node: &Node, service: String, attributes: Vec<(String, String)>) -> Vec<(String, String)> {
    let cluster = node.cluster_id.to_string();
    let own = [
        ("service.name", SERVICE),
        ("service.version", env!("CARGO_PKG_VERSION")),
        ("k8s.cluster.name", cluster.as_str()),
        ("k8s.node.name", node.name.as_str()),
        ("k8s.namespace.name", node.pod_namespace()),
        ("k8s.pod.name", node.pod_name()),
    ];
    let own = own.into_iter().filter(|(_, value)| !value.is_empty());
    let own = own.map(|(name, value)| (name.to_owned(), value.to_owned()));
    let named = (!service.is_empty()).then(|| ("service.name".to_owned(), service));
    let mut resource: Vec<(String, String)> = Vec::new();
    for (name, value) in named.into_iter().chain(attributes).chain(own) {
        if !resource.iter().any(|(known, _)| *known == name) {
            resource.push((name, value));
        }
    }
    resource
}

fn is_said(text: &str) -> bool {
    !text.is_empty()
}

fn protocol(text: &str) -> Result<(), String> {
    match text {
        "grpc" => Ok(()),
        _ => {
            Err("spans are exported by gRPC alone: name the collector's port for that, which is mostly 4317"
                .to_owned())
        }
    }
}

/// Pairs as OpenTelemetry writes them. What is wrong is said without the text, which may be a secret.
fn pairs(text: &str) -> Result<Vec<(String, String)>, String> {
    let pairs = text.split(',').enumerate().filter(|(_, pair)| !pair.trim().is_empty());
    pairs
        .map(|(index, pair)| {
            let number = index + 1;
            let (name, value) = pair.split_once('=').ok_or_else(|| format!("pair {number} has no ="))?;
            let name = name.trim();
            if name.is_empty() || name.chars().any(|c| c.is_whitespace() || c.is_control()) {
                return Err(format!("pair {number} has no name"));
            }
            let value = percent_decode_str(value.trim()).decode_utf8();
            let value = value.map_err(|_| format!("the value of pair {number} is no text in UTF-8"))?;
            Ok((name.to_owned(), value.into_owned()))
        })
        .collect()
}

fn headers(text: &str) -> Result<Headers, String> {
    let mut headers = Headers::default();
    for (name, value) in pairs(text)? {
        headers.add_for_stranger(&name, &value).map_err(|error| error.to_string())?;
    }
    Ok(headers)
}

fn sampler(text: &str) -> Result<(bool, Base), String> {
    let (follows_parent, base) = match text.strip_prefix("parentbased_") {
        Some(base) => (true, base),
        None => (false, text),
    };
    match base {
        "always_on" => Ok((follows_parent, Base::On)),
        "always_off" => Ok((follows_parent, Base::Off)),
        "traceidratio" => Ok((follows_parent, Base::Ratio)),
        _ => Err("no such sampler".to_owned()),
    }
}

fn ratio(text: &str) -> Result<f64, String> {
    let ratio: f64 = kinds::number(text)?;
    if (0.0..=1.0).contains(&ratio) { Ok(ratio) } else { Err("no share".to_owned()) }
}

fn queue(text: &str) -> Result<usize, String> {
    let size: usize = kinds::number(text)?;
    if (1..=LONGEST_QUEUE).contains(&size) { Ok(size) } else { Err("no such size".to_owned()) }
}
