//! Where the CNI plugin is installed, and how.

use std::path::PathBuf;

use super::kinds::{NAME, OPTIONAL_PATH, PATH, SWITCH};
use super::node::Node;
use super::process::Process;
use super::reader::Reader;
use super::setting::{Kind, Known as _, Section, Setting};
use crate::install::{AgentPod, Api, Entry, Form, KUBECONFIG, Plan, Style};

const NAMESPACES: Kind<Vec<String>> = Kind {
    value: "NAMESPACE,…",
    allowed: "names of namespaces with commas between; empty for none",
    parse: namespaces,
};
const CONFIGURATION: Kind<Option<String>> = Kind {
    value: "NAME",
    allowed: "a file's name that ends in .conf or .conflist; empty for the first one",
    parse: configuration,
};
const COPY: Kind<String> =
    Kind { value: "NAME", allowed: "a file's name that ends in .conflist", parse: copy };
const PORT: Kind<u16> = Kind { value: "PORT", allowed: "a port", parse: super::kinds::number };

static CONF_DIR: Setting<Option<PathBuf>> = Setting::new(
    ("cni-conf-dir", "CNI_CONF_DIR"),
    "",
    OPTIONAL_PATH,
    "Directory of the container runtime's network configurations, as the agent sees it. Empty: the agent installs no plugin.",
);
static HOST_CONF_DIR: Setting<PathBuf> = Setting::new(
    ("cni-conf-host-dir", "CNI_NET_DIR"),
    "/etc/cni/net.d",
    PATH,
    "The same directory as the host sees it; the plugin finds its kubeconfig there.",
);
static CONF_NAME: Setting<Option<String>> = Setting::new(
    ("cni-conf-name", "CNI_CONF_NAME"),
    "",
    CONFIGURATION,
    "The network configuration that the plugin is added to, instead of the first one.",
);
static CHAINED: Setting<bool> = Setting::new(
    ("chained-cni-plugin", "CHAINED_CNI_PLUGIN"),
    "true",
    SWITCH,
    "Whether the plugin is added to the runtime's network configuration. Else it gets one of its own, for a plugin such as Multus \
     to call.",
);
static COPIED: Setting<bool> = Setting::new(
    ("own-cni-config", "ISTIO_OWNED_CNI_CONFIG"),
    "false",
    SWITCH,
    "Whether the plugin is added to a copy of the runtime's network configuration, which is kept like the original and comes \
     before it, instead of to the original.",
);
static COPY_NAME: Setting<String> = Setting::new(
    ("own-cni-config-name", "ISTIO_OWNED_CNI_CONFIG_FILENAME"),
    "02-culvert.conflist",
    COPY,
    "The name of that copy.",
);
static REPLACE: Setting<bool> = Setting::new(
    ("replace-istio-cni", "CULVERT_REPLACE_ISTIO_CNI"),
    "false",
    SWITCH,
    "Whether istio-cni is taken out of the network configuration; it is put back when the plugin is removed.",
);
static BIN_DIR: Setting<Option<PathBuf>> = Setting::new(
    ("cni-bin-dir", "CNI_BIN_DIR"),
    "",
    OPTIONAL_PATH,
    "Directory of the container runtime's plugins, as the agent sees it. Empty: the plugin is there already.",
);
static SOURCE: Setting<PathBuf> = Setting::new(
    ("plugin-source", "CULVERT_PLUGIN_SOURCE"),
    "/usr/bin/culvert-cni",
    PATH,
    "The plugin that is copied there.",
);
static EXCLUDED: Setting<Vec<String>> = Setting::new(
    ("exclude-namespaces", "EXCLUDE_NAMESPACES"),
    "kube-system",
    NAMESPACES,
    "Namespaces whose pods are never in the mesh, and never wait for the agent.",
);
static DAEMON_SET: Setting<String> = Setting::new(
    ("daemonset-name", "DAEMONSET_NAME"),
    "",
    NAME,
    "The agent's own DaemonSet: its pods do not wait for the agent, and when it is gone the installation is removed. Empty: nothing \
     is removed.",
);
static API_HOST: Setting<String> = Setting::new(
    ("kubernetes-service-host", "KUBERNETES_SERVICE_HOST"),
    "",
    NAME,
    "Address or name of the Kubernetes API, for the plugin; Kubernetes sets it in each pod. A name is looked up, again and again. \
     Empty: without Kubernetes.",
);
static API_PORT: Setting<u16> =
    Setting::new(("kubernetes-service-port", "KUBERNETES_SERVICE_PORT"), "443", PORT, "Its port.");
static ACCOUNT: Setting<PathBuf> = Setting::new(
    ("service-account-dir", "CULVERT_SERVICE_ACCOUNT_DIR"),
    "/var/run/secrets/kubernetes.io/serviceaccount",
    PATH,
    "Directory with the token of the agent's service account and the API's certificates; they are followed.",
);

pub(super) static SECTION: Section = Section {
    title: "Install",
    settings: &[
        &CONF_DIR,
        &HOST_CONF_DIR,
        &CONF_NAME,
        &CHAINED,
        &COPIED,
        &COPY_NAME,
        &REPLACE,
        &BIN_DIR,
        &SOURCE,
        &EXCLUDED,
        &DAEMON_SET,
        &API_HOST,
        &API_PORT,
        &ACCOUNT,
    ],
    families: &[],
};

/// What is installed.
#[derive(Clone, Debug)]
pub(crate) struct Install {
    /// What is to be on the node; none if nothing is.
    pub(crate) plan: Option<Plan>,
    /// Namespaces whose pods are never in the mesh.
    pub(crate) excluded_namespaces: Vec<String>,
    /// The agent's DaemonSet and its namespace; none if they are not known.
    pub(crate) daemon_set: Option<DaemonSet>,
}

/// Where the agent comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct DaemonSet {
    /// Its namespace.
    pub(crate) namespace: String,
    /// Its name.
    pub(crate) name: String,
}

/// Reads what is installed.
pub(super) fn read(
    reader: &mut Reader<'_>,
    node: Option<&Node>,
    process: Option<&Process>,
) -> Option<Install> {
    let directories = (reader.read(&CONF_DIR), reader.read(&HOST_CONF_DIR), reader.read(&BIN_DIR));
    let (name, copy) = (reader.read(&CONF_NAME), reader.read(&COPY_NAME));
    let [chained, copied, replaces_istio] = [&CHAINED, &COPIED, &REPLACE].map(|one| reader.read(one));
    let (source, excluded, daemon_set) =
        (reader.read(&SOURCE), reader.read(&EXCLUDED), reader.read(&DAEMON_SET));
    let api = (reader.read(&API_HOST), reader.read(&API_PORT), reader.read(&ACCOUNT));
    let style = style(reader, chained?, copied?);
    let (name, copy) = (name?, copy?);
    if style == Style::Copied && name.as_ref() == Some(&copy) {
        let [one, other] = [CONF_NAME.face(), COPY_NAME.face()].map(|face| reader.quote(face));
        reader.problem(format!("{one} and {other}: a configuration cannot be a copy of itself"));
    }
    let (excluded_namespaces, daemon_set) = (excluded?, daemon_set?);
    let run_dir = &process?.place.run_dir;
    let mut entry =
        Entry::new(run_dir.join("cni.sock"), run_dir.join("ambient.json"), excluded_namespaces.clone());
    entry.kubeconfig = Some(directories.1?.join(KUBECONFIG));
    let namespace = node?.pod_namespace().to_owned();
    let daemon_set = (!daemon_set.is_empty() && !namespace.is_empty())
        .then_some(DaemonSet { namespace, name: daemon_set });
    entry.agent_pod = daemon_set
        .clone()
        .map(|set| AgentPod { namespace: set.namespace, name_prefix: format!("{}-", set.name) });
    let (host, port, account) = (api.0?, api.1?, api.2?);
    let api = (!host.is_empty()).then(|| Api::new(&host, port, account));
    let (plugins, source, replaces_istio) = (directories.2?, source?, replaces_istio?);
    let plan = directories.0?.map(|directory| Plan {
        directory,
        style,
        name,
        copy,
        plugins,
        source,
        entry,
        api,
        replaces_istio,
    });
    Some(Install { plan, excluded_namespaces, daemon_set })
}

/// How the plugin gets into the configuration, or a note that two ways are wanted.
fn style(reader: &mut Reader<'_>, chained: bool, copied: bool) -> Style {
    match (chained, copied) {
        (true, false) => Style::Chained,
        (true, true) => Style::Copied,
        (false, false) => Style::Alone,
        (false, true) => {
            let [one, other] = [CHAINED.face(), COPIED.face()].map(|face| reader.quote(face));
            reader.problem(format!(
                "{one} and {other}: a copy has the runtime's plugins in it; leave one of them out"
            ));
            Style::Alone
        }
    }
}

fn namespaces(text: &str) -> Result<Vec<String>, String> {
    if text.is_empty() {
        return Ok(Vec::new());
    }
    let name = |name: &str| match name.trim() {
        "" => Err("a name is missing between commas".to_owned()),
        name if name.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-') => {
            Ok(name.to_owned())
        }
        name => Err(format!("{name:?} is no name of a namespace")),
    };
    text.split(',').map(name).collect()
}

fn configuration(text: &str) -> Result<Option<String>, String> {
    match text {
        "" => Ok(None),
        name if name.contains('/') => Err("a path, where the name of the file is enough".to_owned()),
        name if Form::of(name).is_none() => Err("the runtime would not read it".to_owned()),
        name => Ok(Some(name.to_owned())),
    }
}

fn copy(text: &str) -> Result<String, String> {
    match configuration(text)? {
        Some(name) if Form::of(&name) == Some(Form::List) => Ok(name),
        _ => Err("no name of a list".to_owned()),
    }
}
