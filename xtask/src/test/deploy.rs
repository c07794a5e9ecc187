//! `test deploy`: the Helm chart, as Helm renders it, for every platform, the rules of Prometheus, and the dashboards of Grafana.
//!
//! What comes out is validated against the schemas of Kubernetes, every variable in it is looked for among the agent's settings, and
//! what is wrong must be refused. Rules are run by promtool. No cluster is needed; nothing is installed into one.

mod dashboards;
pub(super) mod rules;
pub(super) mod tools;

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context as _, Result, bail};
use serde_json::Value;

use self::tools::Tools;
use super::catalogue::Catalogue;
use crate::binaries::target_dir;
use crate::{debian, shell};

const CHART: &str = "deploy/helm/culvert";
const NAMESPACE: &str = "istio-system";

/// What a platform has where: its plugins, their configurations, the network namespaces, and whether it chains plugins.
struct Platform {
    name: &'static str,
    plugins: &'static str,
    configurations: &'static str,
    namespaces: &'static str,
    chained: bool,
}

const STANDARD: Platform = Platform {
    name: "",
    plugins: "/opt/cni/bin",
    configurations: "/etc/cni/net.d",
    namespaces: "/var/run/netns",
    chained: true,
};
const PLATFORMS: [Platform; 12] = [
    STANDARD,
    Platform { name: "gke", plugins: "/home/kubernetes/bin", ..STANDARD },
    Platform {
        name: "k3s",
        plugins: "/var/lib/rancher/k3s/data/cni",
        configurations: "/var/lib/rancher/k3s/agent/etc/cni/net.d",
        ..STANDARD
    },
    Platform {
        name: "k3d",
        plugins: "/bin",
        configurations: "/var/lib/rancher/k3s/agent/etc/cni/net.d",
        ..STANDARD
    },
    Platform {
        name: "microk8s",
        plugins: "/var/snap/microk8s/current/opt/cni/bin",
        configurations: "/var/snap/microk8s/current/args/cni-network",
        ..STANDARD
    },
    Platform { name: "minikube", namespaces: "/var/run/docker/netns", ..STANDARD },
    Platform {
        name: "openshift",
        plugins: "/var/lib/cni/bin",
        configurations: "/etc/cni/multus/net.d",
        chained: false,
        ..STANDARD
    },
    Platform { name: "cilium", ..STANDARD },
    Platform { name: "bottlerocket", ..STANDARD },
    Platform { name: "talos", ..STANDARD },
    Platform { name: "aks", ..STANDARD },
    Platform { name: "eks", ..STANDARD },
];

/// Values that must be refused, and a word of the reason.
const WRONG: [(&str, &str); 16] = [
    ("platform=mars", "/platform"),
    ("global.platform=mars", "/global/platform"),
    ("nonsense=1", "nonsense"),
    ("ambient.dnsCaptur=true", "dnsCaptur"),
    ("ambient.dnsCapture=maybe", "/ambient/dnsCapture"),
    ("ambient.enablementSelectors[0].podselector.matchLabels.a=b", "podselector"),
    ("cniBinDir=opt/cni/bin", "/cniBinDir"),
    ("cniConfFileName=/etc/cni/net.d/x.conf", "/cniConfFileName"),
    ("chained=maybe", "/chained"),
    ("xdsAddress=istiod", "/xdsAddress"),
    ("excludeNamespaces[0]=Kube_System", "/excludeNamespaces/0"),
    ("terminationGracePeriodSeconds=0", "/terminationGracePeriodSeconds"),
    ("env.POD_NAME=x", "env.POD_NAME"),
    ("resourceName=Ztunnel", "/resourceName"),
    ("prometheusRule.runbooks=", "/prometheusRule/runbooks"),
    ("serviceMonitor.enabled=true,podMonitor.enabled=true", "scraped twice"),
];

/// Capabilities that the container may have, and no other.
const CAPABILITIES: [&str; 7] =
    ["NET_ADMIN", "NET_RAW", "SYS_ADMIN", "SYS_PTRACE", "BPF", "PERFMON", "DAC_OVERRIDE"];

pub(super) fn run() -> Result<()> {
    println!("\n== deploy: the Helm chart on every platform, rules, dashboards");
    let tools = Tools::ensure()?;
    let [promtool, _] = debian::PROMETHEUS.ensure()?;
    let catalogue = Catalogue::read()?;
    let recorded = rules::check(&tools, &promtool, &catalogue)?;
    dashboards::check(&promtool, &catalogue, &recorded)?;
    let chart = shell::root().join(CHART);
    shell::run(Command::new(&tools.helm).args(["lint", "--strict"]).arg(&chart))?;
    let out = target_dir()?.join("deploy");
    std::fs::create_dir_all(&out)?;
    check_all_are_there(&chart)?;
    let mut rendered = Vec::new();
    for platform in &PLATFORMS {
        let name = if platform.name.is_empty() { "standard" } else { platform.name };
        let file = out.join(format!("{name}.yaml"));
        render(&tools.helm, &chart, &["--set", &format!("platform={}", platform.name)], &file)?;
        check_platform(&tools.parse(&file)?, platform).with_context(|| format!("platform {name}"))?;
        rendered.push(file);
    }
    for values in values_files(&chart)? {
        let file = out.join(values.with_extension("yaml").file_name().context("a file without a name")?);
        let values = values.to_str().context("a path that is no text")?;
        render(&tools.helm, &chart, &["--values", values], &file)?;
        rendered.push(file);
    }
    for file in &rendered {
        check_variables(&tools.parse(file)?).with_context(|| file.display().to_string())?;
    }
    shell::run(Command::new(&tools.validate).args(["--strict", "--quiet"]).args(&rendered))?;
    refuses(&tools.helm, &chart)?;
    println!("  {} renderings are valid, {} wrong values are refused", rendered.len(), WRONG.len());
    Ok(())
}

/// A platform whose file is in the chart and that nobody looks at would not be tested.
fn check_all_are_there(chart: &Path) -> Result<()> {
    let mut there = Vec::new();
    for entry in std::fs::read_dir(chart.join("files"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        there.extend(
            name.strip_prefix("platform-").and_then(|name| name.strip_suffix(".yaml")).map(str::to_owned),
        );
    }
    there.sort();
    let mut known: Vec<_> =
        PLATFORMS.iter().map(|platform| platform.name).filter(|name| !name.is_empty()).collect();
    known.sort_unstable();
    if there != known {
        bail!("the chart has files for {there:?}, and this test knows {known:?}");
    }
    Ok(())
}

fn values_files(chart: &Path) -> Result<Vec<PathBuf>> {
    let entries = std::fs::read_dir(chart.join("ci"))?.collect::<Result<Vec<_>, _>>()?;
    Ok(entries.into_iter().map(|entry| entry.path()).collect())
}

fn template(helm: &Path, chart: &Path, words: &[&str]) -> Command {
    let mut command = Command::new(helm);
    command.args(["template", "culvert"]).arg(chart).args(["--namespace", NAMESPACE]).args(words);
    command
}

fn render(helm: &Path, chart: &Path, words: &[&str], file: &Path) -> Result<()> {
    let text = shell::output(&mut template(helm, chart, words))?;
    std::fs::write(file, text).with_context(|| file.display().to_string())
}

/// The one object of a kind.
fn object<'a>(objects: &'a Value, kind: &str) -> Result<&'a Value> {
    let mut of_kind = objects.as_array().into_iter().flatten().filter(|object| text(object, "/kind") == kind);
    of_kind.next().with_context(|| format!("there is no {kind}"))
}

fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn container(objects: &Value) -> Result<&Value> {
    object(objects, "DaemonSet")?.pointer("/spec/template/spec/containers/0").context("no container")
}

/// The variables of the container, with their values.
fn variables(objects: &Value) -> Result<Vec<(&str, &str)>> {
    let all = container(objects)?.get("env").and_then(Value::as_array).context("no variables")?;
    Ok(all.iter().map(|variable| (text(variable, "/name"), text(variable, "/value"))).collect())
}

fn check_platform(objects: &Value, platform: &Platform) -> Result<()> {
    let set = object(objects, "DaemonSet")?;
    let volumes =
        set.pointer("/spec/template/spec/volumes").and_then(Value::as_array).context("no volumes")?;
    let path = |name: &str| {
        let volume = volumes.iter().find(|volume| text(volume, "/name") == name);
        volume.map(|volume| text(volume, "/hostPath/path")).unwrap_or_default()
    };
    let found = [path("cni-bin"), path("cni-conf"), path("netns")];
    if found != [platform.plugins, platform.configurations, platform.namespaces] {
        bail!("its directories are {found:?}");
    }
    let variables = variables(objects)?;
    let value = |name: &str| variables.iter().find(|(known, _)| *known == name).map(|(_, value)| *value);
    if value("CHAINED_CNI_PLUGIN") != Some(if platform.chained { "true" } else { "false" }) {
        bail!("CHAINED_CNI_PLUGIN is {:?}", value("CHAINED_CNI_PLUGIN"));
    }
    if value("CNI_NET_DIR") != Some(platform.configurations) {
        bail!("the plugin would look for its kubeconfig in {:?}", value("CNI_NET_DIR"));
    }
    // By these others find it.
    for (pointer, expected) in [
        ("/metadata/name", "ztunnel"),
        ("/spec/template/metadata/labels/app", "ztunnel"),
        ("/spec/template/metadata/labels/k8s-app", "istio-cni-node"),
        ("/spec/template/spec/serviceAccountName", "ztunnel"),
        ("/spec/template/spec/priorityClassName", "system-node-critical"),
    ] {
        if text(set, pointer) != expected {
            bail!("{pointer} is {:?} and not {expected}", text(set, pointer));
        }
    }
    let security = container(objects)?.get("securityContext").context("no securityContext")?;
    let added = security.pointer("/capabilities/add").and_then(Value::as_array).context("no capabilities")?;
    if security.get("privileged") != Some(&Value::Bool(false)) || *added != CAPABILITIES {
        bail!("it may do more or less than {CAPABILITIES:?}: {security}");
    }
    Ok(())
}

/// A variable that is no setting of the agent has no effect, or ends it.
fn check_variables(objects: &Value) -> Result<()> {
    let document = std::fs::read_to_string(shell::root().join("docs/configuration.md"))?;
    for (name, _) in variables(objects)? {
        let is_setting = document.contains(&format!("| `{name}` |"));
        if !is_setting && !name.starts_with("ISTIO_META_") {
            bail!("{name} is not in docs/configuration.md");
        }
    }
    Ok(())
}

fn refuses(helm: &Path, chart: &Path) -> Result<()> {
    for (value, reason) in WRONG {
        let ended = harness::command::finish(&mut template(helm, chart, &["--set", value]), b"")?;
        if ended.status.success() {
            bail!("{value} is taken");
        }
        if !ended.stderr.contains(reason) {
            bail!("{value} is refused for another reason: {}", ended.stderr);
        }
    }
    Ok(())
}
