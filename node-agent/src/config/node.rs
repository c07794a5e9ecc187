//! Who this node and its agent are, towards the control plane and in names.

use std::net::IpAddr;

use control::grpc::ClusterId;
use control::xds;
use serde_json::Value;

use super::endpoint::CLUSTER;
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
static CLUSTER_ID: Setting<ClusterId> = Setting::new(
    ("cluster-id", "CLUSTER_ID"),
    "Kubernetes",
    CLUSTER,
    "Cluster that this node is in, as the control plane calls it. `ISTIO_META_CLUSTER_ID` says the same, and counts where both are set.",
)
.or("ISTIO_META_CLUSTER_ID");
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
    "Checked, and not used: the control plane says the trust domain of each workload, and so does a mesh file (`trustDomain:`).",
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

/// What istiod's tools show as a node's version, and count nodes by. It must not begin like a version of Istio, by which
/// istiod would judge what a node understands: what begins otherwise counts as the newest.
const VERSION: (&str, &str) = ("ISTIO_VERSION", concat!("culvert-", env!("CARGO_PKG_VERSION")));

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
            any_case: false,
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
            any_case: false,
        },
    ],
};

/// Who this node is.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    /// The node's name.
    pub(crate) name: String,
    /// Its network; empty for the default one.
    pub(crate) network: String,
    /// Its cluster.
    pub(crate) cluster_id: ClusterId,
    /// What names of Kubernetes end with.
    pub(crate) cluster_domain: String,
    pod_name: String,
    pod_namespace: String,
    service_account: String,
    instance_ip: Option<IpAddr>,
}

/// Reads who we are.
pub(super) fn read(reader: &mut Reader<'_>) -> Option<Node> {
    let texts = [&NODE_NAME, &NETWORK, &CLUSTER_DOMAIN].map(|one| reader.read(one));
    let pod = [&POD_NAME, &POD_NAMESPACE, &SERVICE_ACCOUNT].map(|one| reader.read(one));
    let (cluster_id, instance_ip) = (reader.read(&CLUSTER_ID), reader.read(&INSTANCE_IP));
    reader.read(&TRUST_DOMAIN)?;
    let [name, network, cluster_domain] = texts;
    let [pod_name, pod_namespace, service_account] = pod;
    Some(Node {
        name: name?,
        network: network?,
        cluster_id: cluster_id?,
        cluster_domain: cluster_domain?,
        pod_name: pod_name?,
        pod_namespace: pod_namespace?,
        service_account: service_account?,
        instance_ip: instance_ip?,
    })
}

impl Node {
    /// The namespace of the agent's pod; empty if it is not known.
    pub(super) fn pod_namespace(&self) -> &str {
        &self.pod_namespace
    }

    /// The name of the agent's pod; empty if it is not known.
    pub(super) fn pod_name(&self) -> &str {
        &self.pod_name
    }

    /// What the control plane is told of us, or none and a note of what it would need to know.
    pub(super) fn introduce(&self, reader: &mut Reader<'_>) -> Option<xds::Node> {
        let needed = [
            (self.pod_name.is_empty(), POD_NAME.face()),
            (self.pod_namespace.is_empty(), POD_NAMESPACE.face()),
            (self.instance_ip.is_none(), INSTANCE_IP.face()),
        ];
        for (_, face) in needed.iter().filter(|(is_missing, _)| *is_missing) {
            if !reader.are_good(&[face]) {
                continue;
            }
            reader.problem(format!(
                "{}: a control plane is used (XDS_ADDRESS) and does not take an agent without this; set {} from the downward \
                 API, or --{}",
                reader.quote(face),
                face.variable,
                face.flag
            ));
        }
        let parts = xds::Parts {
            name: Some(self.pod_name.clone()).filter(|name| !name.is_empty())?,
            namespace: Some(self.pod_namespace.clone()).filter(|name| !name.is_empty())?,
            instance_ip: self.instance_ip?,
            node_name: self.name.clone(),
            cluster_id: self.cluster_id.to_string(),
            service_account: Some(self.service_account.clone()).filter(|account| !account.is_empty()),
            network: Some(self.network.clone()).filter(|network| !network.is_empty()),
        };
        match xds::Node::new(parts) {
            Ok(mut node) => {
                add_metadata(reader, &mut node);
                Some(node)
            }
            Err(error) => {
                let [name, namespace] = [&POD_NAME, &POD_NAMESPACE].map(|one| reader.quote(one.face()));
                reader.problem(format!("{name}, {namespace}: {error}"));
                None
            }
        }
    }
}

/// Adds our version, then texts and typed values, which may say it otherwise. What is wrong with them was noted when they were
/// gathered.
fn add_metadata(reader: &Reader<'_>, node: &mut xds::Node) {
    let _ = node.add(VERSION.0, VERSION.1);
    for (name, given) in reader.givens().family(METADATA) {
        let _ = node.add(name, &given.text);
    }
    for (name, given) in reader.givens().family(METADATA_JSON) {
        let _ = node.add_json(name, &given.text);
    }
}

/// Notes metadata that is there as text and typed.
pub(super) fn check_metadata(reader: &mut Reader<'_>) {
    let givens = reader.givens();
    for (name, typed) in givens.family(METADATA_JSON) {
        if let Some((_, text)) = givens.family(METADATA).find(|(other, _)| *other == name) {
            let [text, typed] = [text, typed].map(|given| given.source.to_string());
            reader.problem(format!(
                "the metadata {name} is there as text ({text}) and as JSON ({typed}); leave one out"
            ));
        }
    }
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
