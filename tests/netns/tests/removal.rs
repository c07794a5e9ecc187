//! An agent that is told to end. Kubernetes does so for an upgrade and for good; its DaemonSet tells which, in a stand-in for the API server
//! (`tests/kube-api`). For an upgrade everything stays, plugin and capture; for good nothing does.

use std::fs;
use std::path::PathBuf;

use anyhow::{Context as _, Result, ensure};
use harness::Agent;
use kube_api::DAEMON_SETS;
use netns_tests::cluster::Cluster;
use netns_tests::kernel::routing;
use netns_tests::{Bare, HTTP, LIMIT, at, until_answered};
use serde_json::json;

const CONFLIST: &str = "{\n  \"cniVersion\": \"1.0.0\",\n  \"name\": \"net\",\n  \"plugins\": [\n    { \"type\": \"bridge\" }\n  ]\n}\n";
const NAMESPACE: &str = "istio-system";
const NAME: &str = "ztunnel";

/// The directories of a runtime.
struct Runtime {
    conflist: PathBuf,
    plugin: PathBuf,
}

impl Runtime {
    fn new(bare: &Bare) -> Result<Self> {
        let dir = bare.run.dir().join("runtime");
        for name in ["net.d", "bin"] {
            fs::create_dir_all(dir.join(name))?;
        }
        let conflist = dir.join("net.d/10-net.conflist");
        fs::write(&conflist, CONFLIST)?;
        Ok(Self { conflist, plugin: dir.join("bin/culvert-cni") })
    }

    fn arguments(&self) -> Result<Vec<String>> {
        let directory = |path: &PathBuf| path.parent().map(|dir| dir.display().to_string());
        Ok(vec![
            format!("--cni-conf-dir={}", directory(&self.conflist).context("a directory")?),
            format!("--cni-bin-dir={}", directory(&self.plugin).context("a directory")?),
            format!("--plugin-source={}", harness::node::culvert_cni()?.display()),
            format!("--daemonset-name={NAME}"),
            format!("--pod-namespace={NAMESPACE}"),
        ])
    }

    fn is_installed(&self) -> Result<bool> {
        Ok(fs::read_to_string(&self.conflist)?.contains("culvert-cni") && self.plugin.exists())
    }
}

#[test]
fn the_end_for_good_leaves_nothing_on_the_node_and_any_other_end_everything() -> Result<()> {
    let bare = Bare::new()?;
    let runtime = Runtime::new(&bare)?;
    let mut cluster = Cluster::start(&bare.run, &bare.outside)?;
    let pods = [&bare.client, &bare.neighbour, &bare.server, &bare.plain];
    let cgroups = pods.iter().zip(&bare.apps).map(|(pod, app)| cluster.run(pod, app));
    let _cgroups = cgroups.collect::<Result<Vec<_>>>()?;
    cluster
        .api
        .apply(&json!({ "kind": "Node", "metadata": { "name": "n1", "labels": { "mesh": "culvert" } } }))?;
    cluster.api.apply(&json!({
        "kind": "DaemonSet",
        "metadata": { "name": NAME, "namespace": NAMESPACE },
        "spec": { "template": { "spec": { "nodeSelector": { "mesh": "culvert" } } } },
    }))?;
    bare.write_mesh()?;
    let [n1, n2] = &bare.nodes;
    let (of_cluster, of_runtime) = (cluster.arguments(), runtime.arguments()?);
    let common: Vec<&str> = of_cluster.iter().map(String::as_str).collect();
    let all: Vec<&str> = common.iter().copied().chain(of_runtime.iter().map(String::as_str)).collect();
    let mut agent1 = Agent::spawn(n1, &bare.mesh_path(n1), &all)?;
    let mut agent2 = Agent::spawn(n2, &bare.mesh_path(n2), &common)?;
    agent1.wait_ready()?;
    agent2.wait_ready()?;
    ensure!(runtime.is_installed()?, "a ready agent has installed its plugin");
    for pod in [&bare.client, &bare.neighbour, &bare.server] {
        cluster.label(pod, Some("ambient"))?;
        cluster.until_says(pod, Some("enabled"))?;
    }
    let targets = at(bare.server.addresses(), HTTP);
    for target in targets {
        until_answered(&bare.client, target)?;
    }
    ensure!(routing(&bare.client)?.contains("0xc17"), "{}", routing(&bare.client)?);

    // The DaemonSet is there and wants the node; then nobody can be asked.
    for is_asked in [true, false] {
        if !is_asked {
            cluster.api.stop()?;
        }
        ensure!(agent1.stop()?.success(), "{}", agent1.log());
        ensure!(runtime.is_installed()?, "the API answers: {is_asked}");
        ensure!(cluster.says(&bare.client).as_deref() == Some("enabled"));
        for target in targets {
            ensure!(bare.client.attempt(target, "/")?.is_refused(), "captured pods wait for the next agent");
        }
        if !is_asked {
            cluster.resume()?;
        }
        agent1.restart()?;
        for target in targets {
            until_answered(&bare.client, target)?;
        }
    }

    cluster.api.delete(DAEMON_SETS, NAMESPACE, NAME);
    ensure!(agent1.stop()?.success(), "{}", agent1.log());
    ensure!(fs::read_to_string(&runtime.conflist)? == CONFLIST && !runtime.plugin.exists());
    for pod in [&bare.client, &bare.neighbour] {
        ensure!(cluster.says(pod).is_none(), "{} is said to be captured", pod.name());
        ensure!(!routing(pod)?.contains("0xc17"), "{}", routing(pod)?);
    }
    ensure!(cluster.says(&bare.server).as_deref() == Some("enabled"), "the other node goes on");
    ensure!(!n1.bpffs().join("v1").exists(), "something is pinned still");
    ensure!(!n1.agent_dir().join("pods").exists(), "there are records still");
    let neighbours = at(bare.neighbour.addresses(), HTTP);
    for target in neighbours {
        until_answered(&bare.client, target)?;
    }
    agent1.wait_for_log(&["so does capture on this node"], LIMIT)?;
    Ok(())
}
