//! Who this node and its agent are, towards the control plane and in names.

use std::collections::BTreeMap;
use std::net::IpAddr;

use serde_json::Value;

use super::kinds::{DOMAIN, NAME};
use super::reader::Reader;
use super::setting::{Family, Kind, Known as _, Section, Setting};

const INSTANCE: Kind<Option<IpAddr>> = Kind {
    value: "IP",
    allowed: "an IPv4 or IPv6 address; empty if no control plane is used",
    parse: address,
};

static NODE_NAME: Setting<String> = Setting::new(("node", "NODE_NAME"), "", NAME, "Name of this node.");
static NETWORK: Setting<String> = Setting::new(
    ("network", "NETWORK"),
    "",
    NAME,
    "Network that this node is on; empty for the default one.",
);
static CLUSTER_ID: Setting<String> = Setting::new(
    ("cluster-id", "CLUSTER_ID"),
    "Kubernetes",
    NAME,
    "Cluster that this node is in, as the control plane calls it.",
);
static CLUSTER_DOMAIN: Setting<String> = Setting::new(
    ("cluster-domain", "CLUSTER_DOMAIN"),
    "cluster.local",
    DOMAIN,
    "Domain that names of Kubernetes end with.",
);
static TRUST_DOMAIN: Setting<String> = Setting::new(
    ("trust-domain", "TRUST_DOMAIN"),
    "cluster.local",
    DOMAIN,
    "Trust domain of the mesh that the control plane describes. A mesh file has its own, `trustDomain:`.",
);
static POD_NAME: Setting<String> =
    Setting::new(("pod-name", "POD_NAME"), "", NAME, "Name of the agent's pod; needed with a control plane.");
static POD_NAMESPACE: Setting<String> = Setting::new(
    ("pod-namespace", "POD_NAMESPACE"),
    "",
    NAME,
    "Namespace of the agent's pod; needed with a control plane, which compares it with the token's.",
);
static SERVICE_ACCOUNT: Setting<String> = Setting::new(
    ("service-account", "SERVICE_ACCOUNT"),
    "",
    NAME,
    "Service account of the agent's pod. Where it is set the control plane compares it with the token's.",
);
static INSTANCE_IP: Setting<Option<IpAddr>> = Setting::new(
    ("instance-ip", "INSTANCE_IP"),
    "",
    INSTANCE,
    "Address of the agent's pod; needed with a control plane, which takes no node without one.",
);

const METADATA: &str = "metadata";
const METADATA_JSON: &str = "metadata-json";

pub(super) static SECTION: Section = Section {
    title: "Node",
    settings: &[
        &NODE_NAME,
        &NETWORK,
        &CLUSTER_ID,
        &CLUSTER_DOMAIN,
        &TRUST_DOMAIN,
        &POD_NAME,
        &POD_NAMESPACE,
        &SERVICE_ACCOUNT,
        &INSTANCE_IP,
    ],
    families: &[
        Family {
            flag: METADATA,
            prefix: "ISTIO_META_",
            key: "metadata",
            about: "Text that is sent to the control plane as metadata of the node, under this name.",
            allowed: "a name without blanks, and any text",
            check: |name, _| check_name(name),
            is_secret: false,
        },
        Family {
            flag: METADATA_JSON,
            prefix: "ISTIO_METAJSON_",
            key: "metadataJson",
            about: "The same with a value of any type, written as JSON.",
            allowed: "a name without blanks, and JSON",
            check: |name, value| {
                check_name(name)?;
                let parsed: Result<Value, _> = serde_json::from_str(value);
                parsed.map(drop).map_err(|error| format!("no JSON: {error}"))
            },
            is_secret: false,
        },
    ],
};

/// Who this node and its agent are.
#[derive(Clone, Debug)]
#[allow(dead_code, reason = "for the client of the control plane")]
pub(crate) struct Node {
    /// The node's name.
    pub(crate) name: String,
    /// Its network; empty for the default one.
    pub(crate) network: String,
    /// Its cluster.
    pub(crate) cluster_id: String,
    /// What names of Kubernetes end with.
    pub(crate) cluster_domain: String,
    /// The trust domain of the control plane's mesh.
    pub(crate) trust_domain: String,
    /// The agent's pod.
    pub(crate) pod_name: String,
    /// Its namespace.
    pub(crate) pod_namespace: String,
    /// Its service account; empty if it is not to be told.
    pub(crate) service_account: String,
    /// Its address; there is one if there is a control plane.
    pub(crate) instance_ip: Option<IpAddr>,
    /// What else the control plane is told.
    pub(crate) metadata: BTreeMap<String, Value>,
}

/// Reads who we are.
pub(super) fn read(reader: &mut Reader<'_>) -> Option<Node> {
    let texts =
        [&NODE_NAME, &NETWORK, &CLUSTER_ID, &CLUSTER_DOMAIN, &TRUST_DOMAIN].map(|one| reader.read(one));
    let pod = [&POD_NAME, &POD_NAMESPACE, &SERVICE_ACCOUNT].map(|one| reader.read(one));
    let (instance_ip, metadata) = (reader.read(&INSTANCE_IP), metadata(reader));
    let [name, network, cluster_id, cluster_domain, trust_domain] = texts;
    let [pod_name, pod_namespace, service_account] = pod;
    Some(Node {
        name: name?,
        network: network?,
        cluster_id: cluster_id?,
        cluster_domain: cluster_domain?,
        trust_domain: trust_domain?,
        pod_name: pod_name?,
        pod_namespace: pod_namespace?,
        service_account: service_account?,
        instance_ip: instance_ip?,
        metadata,
    })
}

impl Node {
    /// Notes what a control plane needs to know and does not.
    pub(super) fn must_be_known(&self, reader: &mut Reader<'_>) {
        let needed = [
            (self.pod_name.is_empty(), POD_NAME.face()),
            (self.pod_namespace.is_empty(), POD_NAMESPACE.face()),
            (self.instance_ip.is_none(), INSTANCE_IP.face()),
        ];
        for (_, face) in needed.iter().filter(|(is_missing, _)| *is_missing) {
            reader.problem(format!(
                "{}: a control plane is used (XDS_ADDRESS) and does not take an agent without this; set {} from the downward \
                 API, or --{}",
                reader.quote(face),
                face.variable,
                face.flag
            ));
        }
    }
}

/// Texts and typed values together.
fn metadata(reader: &mut Reader<'_>) -> BTreeMap<String, Value> {
    let givens = reader.givens();
    let mut metadata: BTreeMap<String, Value> = BTreeMap::new();
    for (name, given) in givens.family(METADATA) {
        metadata.insert(name.to_owned(), Value::String(given.text.clone()));
    }
    for (name, given) in givens.family(METADATA_JSON) {
        // What is no JSON was noted when it was gathered.
        let Ok(value) = serde_json::from_str(&given.text) else { continue };
        if metadata.insert(name.to_owned(), value).is_some() {
            let both = given.source.quote(&given.text);
            reader
                .problem(format!("{both}: {name} is there as text, too (ISTIO_META_{name}); leave one out"));
        }
    }
    metadata
}

fn check_name(name: &str) -> Result<(), String> {
    if name.is_empty() || name.chars().any(|c| c.is_whitespace() || c.is_control()) {
        return Err("no name of metadata".to_owned());
    }
    Ok(())
}

fn address(text: &str) -> Result<Option<IpAddr>, String> {
    if text.is_empty() {
        return Ok(None);
    }
    text.parse().map(Some).map_err(|_| "no IP address".to_owned())
}
