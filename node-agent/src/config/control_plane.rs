//! What feeds the mesh: a file, or the control plane, with all that it takes to be let in there.

use std::path::PathBuf;
use std::time::Duration;

use control::grpc::{Address, Endpoint, RootsOfTrust, ServerName, Token};
use control::xds;

use super::endpoint::{ADDRESS, HOSTNAME, ROOTS, TOKEN, check_header, headers, is_literal};
use super::kinds::{DURATION, OPTIONAL_PATH, SWITCH};
use super::node::Node;
use super::reader::Reader;
use super::setting::{Family, Known as _, Section, Setting};

const ISTIOD: &str = "istiod.istio-system.svc:15012";
const ROOT_FILE: &str = "./var/run/secrets/istio/root-cert.pem";
const TOKEN_FILE: &str = "./var/run/secrets/tokens/istio-token";
/// What may be sent along.
const HEADER: &str = "a header's name and a value in printable ASCII, except what the agent sets itself";

pub(super) static MESH: Setting<Option<PathBuf>> = Setting::new(
    ("mesh", "LOCAL_XDS_PATH"),
    "",
    OPTIONAL_PATH,
    "YAML file with workloads, services, policies, the pods to enrol and the local CA; applied again on each change.",
);
pub(super) static XDS_ADDRESS: Setting<Option<Address>> = Setting::new(
    ("xds-address", "XDS_ADDRESS"),
    "",
    ADDRESS,
    "The control plane that says what the mesh is. Empty: none, the mesh file alone says it.",
)
.in_cluster(ISTIOD);
static XDS_ON_DEMAND: Setting<bool> = Setting::new(
    ("xds-on-demand", "XDS_ON_DEMAND"),
    "false",
    SWITCH,
    "Ask the control plane for workloads and services when they are first needed, instead of for all at the start.",
);
static XDS_ROOT_CA: Setting<RootsOfTrust> = Setting::new(
    ("xds-root-ca", "XDS_ROOT_CA"),
    ROOT_FILE,
    ROOTS,
    "What the certificate of the control plane must chain to. A file is read again for each connection.",
);
static ALT_XDS_HOSTNAME: Setting<Option<ServerName>> = Setting::new(
    ("alt-xds-hostname", "ALT_XDS_HOSTNAME"),
    "",
    HOSTNAME,
    "The name that the control plane's certificate must have, if it is not that of the address.",
);
pub(super) static CA_ADDRESS: Setting<Option<Address>> = Setting::new(
    ("ca-address", "CA_ADDRESS"),
    "",
    ADDRESS,
    "The authority that signs the certificates of workloads. Empty: the one that `ca:` of the mesh file names.",
)
.in_cluster(ISTIOD);
static CA_ROOT_CA: Setting<RootsOfTrust> = Setting::new(
    ("ca-root-ca", "CA_ROOT_CA"),
    ROOT_FILE,
    ROOTS,
    "What the certificate of the authority's server must chain to. A file is read again for each connection.",
);
static ALT_CA_HOSTNAME: Setting<Option<ServerName>> = Setting::new(
    ("alt-ca-hostname", "ALT_CA_HOSTNAME"),
    "",
    HOSTNAME,
    "The name that the certificate of the authority's server must have, if it is not that of the address.",
);
static AUTH_TOKEN: Setting<Option<Token>> = Setting::new(
    ("auth-token", "AUTH_TOKEN"),
    TOKEN_FILE,
    TOKEN,
    "The token that proves to both who this agent is. A file is read again for each use; a token itself is never shown.",
)
.secret(is_literal);
static SECRET_TTL: Setting<Duration> = Setting::new(
    ("secret-ttl", "SECRET_TTL"),
    "24h",
    DURATION,
    "How long certificates are to be valid that the authority at the CA address signs; it may grant less.",
);

const XDS_HEADER: &str = "xds-header";
const CA_HEADER: &str = "ca-header";

pub(super) static SECTION: Section = Section {
    title: "Control plane",
    settings: &[
        &MESH,
        &XDS_ADDRESS,
        &XDS_ON_DEMAND,
        &XDS_ROOT_CA,
        &ALT_XDS_HOSTNAME,
        &CA_ADDRESS,
        &CA_ROOT_CA,
        &ALT_CA_HOSTNAME,
        &AUTH_TOKEN,
        &SECRET_TTL,
    ],
    families: &[
        Family {
            flag: XDS_HEADER,
            prefix: "XDS_HEADER_",
            key: "xdsHeaders",
            about: "A header that is sent to the control plane with each stream. Its value is never shown.",
            allowed: HEADER,
            check: check_header,
            is_secret: true,
            any_case: true,
        },
        Family {
            flag: CA_HEADER,
            prefix: "CA_HEADER_",
            key: "caHeaders",
            about: "A header that is sent to the authority with each request. Its value is never shown.",
            allowed: HEADER,
            check: check_header,
            is_secret: true,
            any_case: true,
        },
    ],
};

/// Where the mesh and its certificates come from, if not from the mesh file.
#[derive(Clone, Debug)]
pub(crate) struct ControlPlane {
    /// What says what the mesh is; none if the mesh file does.
    pub(crate) xds: Option<xds::Config>,
    /// What signs certificates; none if the mesh file names a local authority.
    pub(crate) ca: Option<Endpoint>,
    /// How long its certificates are to be valid.
    pub(crate) certificate_ttl: Duration,
}

/// Reads where the mesh file is, and the control plane.
pub(super) fn read(reader: &mut Reader<'_>, node: Option<&Node>) -> Option<(Option<PathBuf>, ControlPlane)> {
    let mesh = reader.read(&MESH);
    let (xds, ca) = (reader.read(&XDS_ADDRESS), reader.read(&CA_ADDRESS));
    let token = reader.read(&AUTH_TOKEN);
    let roots = (reader.read(&XDS_ROOT_CA), reader.read(&CA_ROOT_CA));
    let hostnames = (reader.read(&ALT_XDS_HOSTNAME), reader.read(&ALT_CA_HOSTNAME));
    let (on_demand, certificate_ttl) = (reader.read(&XDS_ON_DEMAND), reader.read(&SECRET_TTL));
    let (mesh, xds, ca, token) = (mesh?, xds?, ca?, token?);
    agree(reader, mesh.is_some(), xds.is_some(), ca.is_some());
    let (givens, cluster_id) = (reader.givens(), node.map(|node| node.cluster_id.clone()));
    let endpoint = |address: Option<Address>, roots, server_name, family| {
        Some(Endpoint {
            address: address?,
            roots,
            server_name,
            token: token.clone(),
            headers: headers(givens, family),
            cluster_id: Some(cluster_id.clone()?),
        })
    };
    let (xds, ca) =
        (endpoint(xds, roots.0?, hostnames.0?, XDS_HEADER), endpoint(ca, roots.1?, hostnames.1?, CA_HEADER));
    let on_demand = on_demand?;
    let xds = xds.zip(node).and_then(|(endpoint, node)| {
        let node = node.introduce(reader)?;
        Some(xds::Config { endpoint, node, on_demand })
    });
    let plane = ControlPlane { xds, ca, certificate_ttl: certificate_ttl? };
    Some((mesh, plane))
}

/// Notes what is missing for there to be a mesh, and certificates.
fn agree(reader: &mut Reader<'_>, has_mesh: bool, has_xds: bool, has_ca: bool) {
    if !reader.are_good(&[MESH.face(), XDS_ADDRESS.face(), CA_ADDRESS.face()]) {
        return;
    }
    if !has_mesh && !has_xds {
        reader.problem(format!(
            "nothing says what the mesh is: set {} to the control plane's address, such as {ISTIOD}, or {} to a mesh file \
             (--{}, --{})",
            XDS_ADDRESS.face().variable,
            MESH.face().variable,
            XDS_ADDRESS.face().flag,
            MESH.face().flag,
        ));
    } else if !has_mesh && !has_ca {
        reader.problem(format!(
            "{}: nobody signs certificates: set {} to the authority's address, such as {ISTIOD}, or {} to a mesh file with \
             `ca:` in it (--{}, --{})",
            reader.quote(CA_ADDRESS.face()),
            CA_ADDRESS.face().variable,
            MESH.face().variable,
            CA_ADDRESS.face().flag,
            MESH.face().flag,
        ));
    }
}
