//! The image as the chart runs it: it installs the plugin on a node that has none, and is the node's agent from then on.
//!
//! Capabilities, mounts, read-only files and variables are those of the chart's manifest, as Helm renders it. There is no
//! cluster here: a mesh file stands in for istiod, and the run's directory for the node's.

use std::collections::HashMap;
use std::net::{IpAddr, SocketAddr};

use anyhow::{Context as _, Result, bail, ensure};
use cri_tests::daemon_set::{Cluster, DaemonSet};
use cri_tests::node::CONFLIST;
use cri_tests::{CriNode, CriPod, LIMIT, PodSpec};
use harness::client::{self, Attempt, Http};
use harness::inside::in_netns;
use harness::node::binary;
use harness::wait::eventually_ok;
use harness::{MeshFile, Run, Wire};
use serde_json::json;

/// As `cargo xtask image` names it.
const IMAGE: &str = concat!("localhost/culvert:", env!("CARGO_PKG_VERSION"));
const READINESS_PORT: u16 = 15021;
/// Seconds from SIGTERM to SIGKILL; an agent without connections needs none of them.
const GRACE: u32 = 30;

#[test]
fn the_image_installs_the_plugin_and_is_the_agent_of_a_node() -> Result<()> {
    let run = Run::start()?;
    let wire = Wire::new(&run)?;
    let n1 = CriNode::start_bare(&wire, "n1")?;
    n1.containerd.import(&binary("CULVERT_IMAGE", "culvert.tar")?)?;
    let mut mesh = MeshFile::with_ca(&run.dir().join("ca"));
    mesh.enroll = vec![n1.enrol("client"), n1.enrol("server")];
    mesh.write_for(&n1.node, &n1.mesh_path())?;

    let first = start(&n1, &run, "ztunnel-4x7kp")?;
    let conflist = n1.cni_dirs().1.join(CONFLIST);
    ensure!(std::fs::read_to_string(&conflist)?.contains("culvert-cni"), "ready, and nothing is installed");
    eventually_ok("the runtime to read its configuration again", LIMIT, || {
        let read = n1.cri.status()?.info.remove("cniconfig").context("no configuration")?;
        ensure!(read.contains("culvert-cni"), "{read}");
        Ok(())
    })?;

    let client = n1.pod_with_server(&PodSpec::named("client"))?;
    let server = n1.pod_with_server(&PodSpec::named("server"))?;
    mesh.workloads = vec![client.workload(&n1.node), server.workload(&n1.node)];
    mesh.write_for(&n1.node, &n1.mesh_path())?;
    served(&client, &server)?;
    let identity = "spiffe://cluster.local/ns/demo/sa/client";
    eventually_ok("the tunnel's record", LIMIT, || {
        let log = n1.logs(&first.spec);
        let record = log.lines().find(|line| line.contains("inbound") && line.contains(identity));
        record.map(drop).with_context(|| log.clone())
    })?;

    // Without an agent nothing goes past it, and nobody new comes in.
    n1.cri.stop_container(&first.container, GRACE)?;
    for to in server.servers() {
        let attempt = client.attempt(to)?;
        ensure!(attempt.is_refused(), "without an agent: {attempt:?}");
    }
    n1.remove(&server)?;
    let error = n1.sandbox(&PodSpec::named("server")).err().context("a pod starts without an agent")?;
    ensure!(format!("{error:#}").contains("is held back"), "{error:#}");

    // The next one finds what the first has left.
    n1.remove(&first.pod)?;
    let next = start(&n1, &run, "ztunnel-9q2fz")?;
    let server = n1.pod_with_server(&PodSpec::named("server"))?;
    mesh.workloads = vec![client.workload(&n1.node), server.workload(&n1.node)];
    mesh.write_for(&n1.node, &n1.mesh_path())?;
    served(&client, &server).with_context(|| n1.logs(&next.spec))
}

/// An agent that is ready.
struct Started {
    spec: PodSpec,
    pod: CriPod,
    container: String,
}

fn start(node: &CriNode, run: &Run, name: &str) -> Result<Started> {
    let spec = PodSpec { namespace: "istio-system".to_owned(), ..PodSpec::named(name) };
    let (plugins, conflists) = node.cni_dirs();
    let run_dir = node.node.agent_dir();
    let values = json!({
        "image": IMAGE,
        "cniBinDir": plugins,
        "cniConfDir": conflists,
        "cniNetnsDir": node.containerd.namespaces(),
        "env": {
            // In the place of istiod.
            "LOCAL_XDS_PATH": node.mesh_path(), "XDS_ADDRESS": "", "CA_ADDRESS": "",
            // The plugin finds both under the same paths.
            "CULVERT_RUN_DIR": run_dir, "CULVERT_BPFFS": node.node.bpffs(),
        },
        "volumes": [{ "name": "test", "hostPath": { "path": run.dir(), "type": "Directory" } }],
        "volumeMounts": [{ "name": "test", "mountPath": run.dir() }],
    });
    let fields = HashMap::from([
        ("spec.nodeName", node.node.name().to_owned()),
        ("metadata.name", spec.name.clone()),
        ("metadata.namespace", spec.namespace.clone()),
        ("spec.serviceAccountName", "ztunnel".to_owned()),
        ("status.podIP", node.node.addresses().0.to_string()),
    ]);
    let places = HashMap::from([("/run/culvert", run_dir)]);
    let cluster = Cluster { fields, places, volumes: run.dir().join("volumes").join(name) };
    let container = DaemonSet::render(&values, &run.dir())?.container(&cluster)?;
    let (pod, container) = node.pod_with(&spec, container)?;
    let address = *pod.ips.first().context("an agent without an address")?;
    eventually_ok("the agent of the image to be ready", LIMIT, || ready(node, address))
        .with_context(|| node.logs(&spec))?;
    Ok(Started { spec, pod, container })
}

fn ready(node: &CriNode, address: IpAddr) -> Result<()> {
    let to = SocketAddr::new(address, READINESS_PORT);
    let stream = in_netns(node.node.netns(), || client::connect(to, client::LIMIT))??;
    let reply = Http::new(stream)?.get("/healthz/ready")?;
    ensure!(reply.status == 200, "{reply:?}");
    Ok(())
}

/// The client reaches the server at each of its addresses, as itself.
fn served(client: &CriPod, server: &CriPod) -> Result<()> {
    for to in server.servers() {
        eventually_ok("the server to answer", LIMIT, || {
            let attempt = client.attempt(to)?;
            let Attempt::Answered(reply) = &attempt else { bail!("{attempt:?}") };
            let peer = reply.field("peer");
            ensure!(
                reply.status == 200 && client.ips.iter().any(|ip| peer.contains(&ip.to_string())),
                "{reply:?}"
            );
            Ok(())
        })?;
    }
    Ok(())
}
