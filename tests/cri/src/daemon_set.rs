//! The chart's DaemonSet on one node: what a kubelet makes of its container for the runtime.
//!
//! The chart is rendered by Helm with the node's own places as values; nothing else of it is changed. What only a cluster can
//! provide (config maps, projected tokens, fields of the pod) comes from the test. Anything in the manifest that this kubelet
//! does not know is an error, so that no part of it goes untested unnoticed.

use std::collections::HashMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use harness::command;
use harness::node::binary;
use serde_json::Value;

use crate::cri::proto::{
    Capability, ContainerConfig, ContainerMetadata, ContainerSecurity, ImageSpec, KeyValue,
    LinuxContainerConfig, Mount, MountPropagation,
};

const CHART: &str = "../../deploy/helm/culvert";
/// What a runtime hides of /proc unless a pod asks for all of it, as the kubelet tells it.
const MASKED: [&str; 10] = [
    "/proc/asound",
    "/proc/acpi",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/sys/firmware",
];
/// What it makes read-only, likewise.
const READ_ONLY: [&str; 5] = ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"];

/// What a cluster knows and a manifest does not say.
#[derive(Debug)]
pub struct Cluster {
    /// Values of fields of the pod, by their path.
    pub fields: HashMap<&'static str, String>,
    /// Directories of the host's that are elsewhere on this node.
    pub places: HashMap<&'static str, PathBuf>,
    /// Where volumes are that are no directory of the host's; each is made, empty.
    pub volumes: PathBuf,
}

/// A rendered DaemonSet.
#[derive(Debug)]
pub struct DaemonSet {
    pod: Value,
}

impl DaemonSet {
    /// Renders the chart with these values; `scratch` is where they are written.
    pub fn render(values: &Value, scratch: &Path) -> Result<Self> {
        let chart = Path::new(env!("CARGO_MANIFEST_DIR")).join(CHART);
        let file = scratch.join("values.json");
        fs::write(&file, values.to_string()).with_context(|| file.display().to_string())?;
        let mut helm = Command::new(binary("HELM_BIN", "helm")?);
        helm.args(["template", "culvert"]).arg(chart).arg("--values").arg(file);
        helm.args(["--namespace", "istio-system", "--show-only", "templates/daemonset.yaml"]);
        let rendered = command::run(&mut helm)?;
        let set: Value = serde_saphyr::from_str(&rendered).context("what Helm rendered")?;
        let pod = set.pointer("/spec/template/spec").context("a DaemonSet without a pod")?.clone();
        Ok(Self { pod })
    }

    /// Its container for the runtime.
    pub fn container(&self, cluster: &Cluster) -> Result<ContainerConfig> {
        let container = self.pod.pointer("/containers/0").context("a pod without a container")?;
        for key in keys(container) {
            let known = [
                "name",
                "image",
                "args",
                "ports",
                "securityContext",
                "readinessProbe",
                "resources",
                "env",
                "volumeMounts",
            ];
            known_key(key, &known)?;
        }
        Ok(ContainerConfig {
            metadata: Some(ContainerMetadata { name: text(container, "name")?.to_owned(), attempt: 0 }),
            image: Some(ImageSpec { image: text(container, "image")?.to_owned() }),
            args: list(container, "args").filter_map(Value::as_str).map(str::to_owned).collect(),
            envs: list(container, "env").map(|one| variable(one, cluster)).collect::<Result<_>>()?,
            mounts: list(container, "volumeMounts")
                .map(|one| self.mount(one, cluster))
                .collect::<Result<_>>()?,
            log_path: "agent.log".to_owned(),
            linux: Some(LinuxContainerConfig {
                security_context: Some(security(container.get("securityContext").context("no context")?)?),
            }),
            ..ContainerConfig::default()
        })
    }

    fn mount(&self, mount: &Value, cluster: &Cluster) -> Result<Mount> {
        let name = text(mount, "name")?;
        let volume = list(&self.pod, "volumes").find(|volume| volume["name"] == name);
        let volume = volume.with_context(|| format!("no volume {name}"))?;
        let host_path = match volume.pointer("/hostPath/path").and_then(Value::as_str) {
            Some(path) => {
                let place = cluster.places.get(path).map_or(Path::new(path), PathBuf::as_path);
                if volume.pointer("/hostPath/type").and_then(Value::as_str) == Some("DirectoryOrCreate") {
                    fs::create_dir_all(place).with_context(|| path.to_owned())?;
                }
                place.to_owned()
            }
            None => {
                let directory = cluster.volumes.join(name);
                fs::create_dir_all(&directory)?;
                directory
            }
        };
        let propagation = match mount.get("mountPropagation").and_then(Value::as_str) {
            None => MountPropagation::PropagationPrivate,
            Some("HostToContainer") => MountPropagation::PropagationHostToContainer,
            Some(other) => bail!("mountPropagation {other} is not allowed to the agent"),
        };
        Ok(Mount {
            container_path: text(mount, "mountPath")?.to_owned(),
            host_path: host_path.display().to_string(),
            readonly: mount.get("readOnly").and_then(Value::as_bool).unwrap_or_default(),
            propagation: propagation.into(),
        })
    }
}

fn variable(variable: &Value, cluster: &Cluster) -> Result<KeyValue> {
    let key = text(variable, "name")?.to_owned();
    let value = match variable.pointer("/valueFrom/fieldRef/fieldPath").and_then(Value::as_str) {
        Some(path) => cluster.fields.get(path).with_context(|| format!("field {path} of the pod"))?.clone(),
        None => text(variable, "value")?.to_owned(),
    };
    Ok(KeyValue { key, value })
}

fn security(context: &Value) -> Result<ContainerSecurity> {
    for key in keys(context) {
        let known = [
            "privileged",
            "allowPrivilegeEscalation",
            "readOnlyRootFilesystem",
            "runAsNonRoot",
            "runAsUser",
            "runAsGroup",
            "capabilities",
        ];
        known_key(key, &known)?;
    }
    // The image runs as root by itself; the manifest says so to Kubernetes.
    let is = |key: &str| context.get(key).and_then(Value::as_bool).unwrap_or_default();
    if is("privileged") || is("runAsNonRoot") || context["runAsUser"] != 0 {
        bail!("this kubelet runs containers as root, with capabilities: {context}");
    }
    let capabilities = context.get("capabilities").context("no capabilities")?;
    let names = |key: &str| list(capabilities, key).filter_map(Value::as_str).map(str::to_owned).collect();
    Ok(ContainerSecurity {
        capabilities: Some(Capability { add_capabilities: names("add"), drop_capabilities: names("drop") }),
        namespace_options: None,
        readonly_rootfs: is("readOnlyRootFilesystem"),
        no_new_privs: !is("allowPrivilegeEscalation"),
        masked_paths: MASKED.map(str::to_owned).into(),
        readonly_paths: READ_ONLY.map(str::to_owned).into(),
    })
}

fn keys(object: &Value) -> impl Iterator<Item = &str> {
    object.as_object().into_iter().flatten().map(|(key, _)| key.as_str())
}

fn known_key(key: &str, known: &[&str]) -> Result<()> {
    if known.contains(&key) {
        return Ok(());
    }
    bail!("{key} of the container is nothing that this kubelet knows: teach it, or it goes untested")
}

fn list<'a>(object: &'a Value, key: &str) -> impl Iterator<Item = &'a Value> {
    object.get(key).and_then(Value::as_array).into_iter().flatten()
}

fn text<'a>(object: &'a Value, key: &str) -> Result<&'a str> {
    object.get(key).and_then(Value::as_str).with_context(|| format!("{key} is missing in {object}"))
}
