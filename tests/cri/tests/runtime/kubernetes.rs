//! A node of a cluster, whose API is a stand-in (`tests/kube-api`): who is in the mesh say labels, with and without the agent.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use base64::Engine as _;
use cri_tests::leftovers::Empty;
use cri_tests::{CriNode, LIMIT, PodSpec};
use harness::wait::eventually_ok;
use harness::{MeshFile, Run, Wire, eventually};
use kube_api::PODS;
use netns_tests::cluster::{Cluster, MODE, REDIRECTION};
use serde_json::{Value, json};

/// The namespace whose pods are in the mesh.
const MESH: &str = "mesh";

/// A cluster, and what its nodes find it by.
struct Site {
    cluster: Cluster,
    dir: PathBuf,
}

impl Site {
    fn start(run: &Run, wire: &Wire) -> Result<Self> {
        let cluster = Cluster::start(run, &wire.add_host("api")?)?;
        let mesh =
            json!({ "kind": "Namespace", "metadata": { "name": MESH, "labels": { MODE: "ambient" } } });
        cluster.api.apply(&mesh)?;
        Ok(Self { cluster, dir: run.dir().join("kube-api") })
    }

    /// What the installer writes for the plugin.
    fn kubeconfig(&self) -> Result<Value> {
        let authority = base64::engine::general_purpose::STANDARD.encode(fs::read(self.dir.join("ca.crt"))?);
        let server = format!("https://{}", self.cluster.address());
        let token = fs::read_to_string(self.dir.join("token"))?;
        Ok(json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "c",
            "contexts": [{ "name": "c", "context": { "cluster": "k", "user": "u" } }],
            "clusters": [{ "name": "k", "cluster": { "server": server, "certificate-authority-data": authority } }],
            "users": [{ "name": "u", "user": { "token": token.trim() } }],
        }))
    }

    /// A pod that is to be started on a node.
    fn pod(&self, node: &CriNode, name: &str, namespace: &str, labels: &Value) -> Result<PodSpec> {
        let spec = PodSpec { namespace: namespace.to_owned(), ..PodSpec::named(name) };
        self.cluster.api.apply(&json!({
            "kind": "Pod",
            "metadata": { "name": name, "namespace": namespace, "uid": spec.uid, "labels": labels },
            "spec": { "nodeName": node.node.name(), "serviceAccountName": name },
            "status": { "phase": "Pending" },
        }))?;
        Ok(spec)
    }
}

/// The event of a pod that does not start.
fn held(node: &CriNode, spec: &PodSpec) -> Result<String> {
    let error = node.sandbox(spec).err().with_context(|| format!("{} starts without an agent", spec.name))?;
    Ok(format!("{error:#}"))
}

#[test]
fn labels_decide_with_the_agent_and_without_it() -> Result<()> {
    let run = Run::start()?;
    let wire = Wire::new(&run)?;
    let n1 = CriNode::start(&wire, "n1")?;
    let site = Site::start(&run, &wire)?;
    MeshFile::with_ca(&run.dir().join("ca")).write_for(&n1.node, &n1.mesh_path())?;
    fs::write(n1.kubeconfig(), site.kubeconfig()?.to_string())?;
    let ambient = json!({ MODE: "ambient" });
    let labelled = site.pod(&n1, "labelled", "demo", &ambient)?;
    let plain = site.pod(&n1, "plain", "demo", &json!({}))?;
    let member = site.pod(&n1, "member", MESH, &json!({}))?;
    let declining = site.pod(&n1, "declining", MESH, &json!({ MODE: "none" }))?;

    let Site { mut cluster, .. } = site;
    let kubeconfig = format!("--kubeconfig={}", cluster.api.kubeconfig().display());
    let mut agent = n1.start_agent_with(&["--kubernetes", &kubeconfig])?;
    let empty = Empty::look(&n1)?;
    let says = |spec: &PodSpec| cluster.api.annotation(PODS, &spec.namespace, &spec.name, REDIRECTION);
    let mut pods = Vec::new();
    for (spec, expected) in [(&labelled, true), (&plain, false), (&member, true), (&declining, false)] {
        let pod = n1.sandbox(spec)?;
        let name = format!("{}/{}", spec.namespace, spec.name);
        let is_enrolled = !agent.log_lines(&["pod enrolled", &name]).is_empty();
        ensure!(is_enrolled == expected, "{name} is enrolled: {is_enrolled}");
        if expected {
            let enabled = || (says(spec)? == "enabled").then_some(());
            eventually(&format!("{name} to be annotated"), LIMIT, enabled)?;
        } else {
            ensure!(says(spec).is_none(), "{name} is annotated");
        }
        pods.push(pod);
    }
    let cookies = pods.iter().map(cri_tests::CriPod::cookie).collect::<Result<Vec<u64>>>()?;
    pods.iter().try_for_each(|pod| n1.remove(pod))?;
    empty.wait(&n1, &cookies)?;
    agent.kill9()?;

    // The list has the namespace; of whatever a pod's own labels say the API knows, and is asked.
    let event = held(&n1, &member)?;
    ensure!(event.contains("it is in the mesh"), "{event}");
    eventually_ok("the API to say that a labelled pod is in the mesh", LIMIT, || {
        let event = held(&n1, &labelled)?;
        ensure!(event.contains("its labels say that it is in the mesh"), "{event}");
        Ok(())
    })?;
    for spec in [&plain, &declining] {
        let PodSpec { namespace, name, .. } = spec;
        let started = eventually_ok(&format!("{name} to start"), LIMIT, || n1.sandbox(spec))?;
        n1.remove(&started)?;
        let (seen, path) = (cluster.api.seen(), format!("/{namespace}/pods/{name}"));
        let is_asked = seen.iter().any(|seen| seen.verb == "get" && seen.uri.ends_with(&path));
        ensure!(is_asked, "the API was not asked for the pod: {seen:?}");
    }

    // Without the API, too, nobody can tell.
    cluster.api.stop()?;
    for spec in [&plain, &declining] {
        let event = held(&n1, spec)?;
        ensure!(event.contains("nobody can tell"), "{event}");
    }
    cluster.resume()?;
    agent.restart()?;
    for spec in [&plain, &labelled, &declining] {
        let pod = eventually_ok(&format!("{} to start by itself", spec.name), LIMIT, || n1.sandbox(spec))?;
        n1.remove(&pod)?;
    }
    Ok(())
}
