//! `culvert --node`: any node's agent asked through the API server, from a host that has no agent.
//!
//! The API server is a stand-in (`tests/kube-api`), and so is the kubelet in it, which enters the network namespace of a node to connect to a
//! port there: what is real is the command with its client of Kubernetes, the websockets between the two, and the agents that answer. A
//! real API server is tried outside CI.

use std::collections::HashMap;
use std::io;
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, ensure};
use harness::command;
use harness::inside::in_netns;
use kube_api::{Fault, PODS};
use netns_tests::World;
use netns_tests::cluster::Cluster;
use serde_json::{Value, json};

const AGENTS: &str = "istio-system";

/// Two nodes whose agents are in a cluster.
struct Far {
    world: World,
    cluster: Cluster,
    /// Where the user sits.
    desk: PathBuf,
}

/// An agent's pod, as the chart's DaemonSet makes it.
fn agent_pod(name: &str, node: &str, phase: &str, ready: &str) -> Value {
    json!({
        "kind": "Pod",
        "metadata": {"name": name, "namespace": AGENTS, "uid": name, "labels": {"app": "ztunnel"}},
        "spec": {"nodeName": node, "hostNetwork": true},
        "status": {"phase": phase, "conditions": [{"type": "Ready", "status": ready}]},
    })
}

impl Far {
    fn new() -> Result<Self> {
        let world = World::new()?;
        let cluster = Cluster::start(&world.run, &world.outside)?;
        let mut netns = HashMap::new();
        for node in &world.nodes {
            let pod = format!("ztunnel-{}", node.name());
            cluster.api.apply(&agent_pod(&pod, node.name(), "Running", "True"))?;
            netns.insert(pod, node.netns().to_owned());
        }
        cluster.api.carry(move |namespace, pod, port| {
            let netns = netns.get(pod).filter(|_| namespace == AGENTS);
            let netns = netns.ok_or_else(|| io::Error::other("no such sandbox"))?;
            in_netns(netns, || TcpStream::connect((Ipv4Addr::LOCALHOST, port))).map_err(io::Error::other)?
        });
        let desk = world.outside.netns.clone();
        Ok(Self { world, cluster, desk })
    }

    /// `culvert` with these words at the desk: exit code, stdout and stderr.
    fn culvert(&self, words: &[&str]) -> Result<(i32, String, String)> {
        let line = self.world.agent1.command_line()?;
        let (program, _) = line.split_first().context("program")?;
        let mut asked = command::in_netns(&self.desk, Path::new(program));
        let kubeconfig = self.cluster.api.kubeconfig();
        asked.args(words).arg("--kubeconfig").arg(kubeconfig).env_remove("KUBECONFIG");
        let ended = command::finish(&mut asked, b"")?;
        Ok((ended.status.code().context("killed")?, ended.stdout, ended.stderr))
    }

    fn json(&self, words: &[&str]) -> Result<(i32, Value)> {
        let words: Vec<&str> = words.iter().copied().chain(["-o", "json"]).collect();
        let (code, stdout, stderr) = self.culvert(&words)?;
        let value =
            serde_json::from_str(&stdout).with_context(|| format!("{words:?}: {code} {stdout}{stderr}"))?;
        Ok((code, value))
    }
}

#[test]
fn the_agent_of_any_node_answers_through_the_api_server() -> Result<()> {
    let far = Far::new()?;
    let [n1, n2] = &far.world.nodes;
    for (node, expected) in [(n1, &["demo/client", "demo/neighbour"][..]), (n2, &["demo/server"][..])] {
        let (code, pods) = far.json(&["pods", "--node", node.name()])?;
        let names: Vec<_> = pods.as_array().context("pods")?.iter().map(|pod| pod["pod"].clone()).collect();
        ensure!(code == 0 && names == expected, "{code} {pods}");
    }
    let (code, status) = far.json(&["status", "--node", n1.name()])?;
    ensure!(code == 0 && status["enrolled"] == 2 && status["ready"] == true, "{status}");
    // What needs the agent to look, and what is answered in many parts.
    let (code, verified) = far.json(&["verify", "--node", n2.name(), "--context", "test"])?;
    ensure!(code == 0 && verified["whole"] == true, "{verified}");
    let (code, config, _) = far.culvert(&["logging", "--node", n1.name()])?;
    ensure!(code == 0 && config.contains("info"), "{config}");
    let server = far.world.server.addresses().first().context("address")?.to_string();
    let check = ["policy", "check", "--from", "none", "--to", &server, "--port", "8080", "--node", n2.name()];
    let (code, verdict) = far.json(&check)?;
    ensure!(code == 0 && verdict["allowed"] == true, "{verdict}");
    // What is wrong with a question is said as on the node.
    let (code, _, stderr) = far.culvert(&["pods", "nobody", "--node", n1.name()])?;
    ensure!(code == 1 && stderr.contains("knows no pod nobody"), "{code} {stderr}");
    let archive = far.world.run.dir().join("far.tar.gz");
    let archive = archive.to_str().context("path")?;
    let (code, _, stderr) = far.culvert(&["support", "--file", archive, "--node", n1.name()])?;
    ensure!(code == 0 && Path::new(archive).metadata()?.len() > 1000, "{code} {stderr}");
    Ok(())
}

#[test]
fn what_is_in_the_way_is_said() -> Result<()> {
    let mut far = Far::new()?;
    let node = far.world.nodes[0].name().to_owned();
    let pods = ["pods", "--node", node.as_str()];
    let denied = |far: &Far, verb: &str| far.cluster.api.fail(verb, Fault::Status(403), 1);

    denied(&far, "list")?;
    let (code, _, stderr) = far.culvert(&pods)?;
    ensure!(
        code == 1 && stderr.contains("this user may not list pods in namespace istio-system"),
        "{code} {stderr}"
    );
    denied(&far, "portforward")?;
    let (code, _, stderr) = far.culvert(&pods)?;
    ensure!(
        code == 1 && stderr.contains("may not create pods/portforward in namespace istio-system"),
        "{code} {stderr}"
    );

    let (code, _, stderr) = far.culvert(&["pods", "--node", "nowhere"])?;
    ensure!(code == 2 && stderr.contains("no pod app=ztunnel on a node nowhere"), "{code} {stderr}");
    let (code, _, stderr) = far.culvert(&["pods", "--node", &node, "--namespace", "default"])?;
    ensure!(code == 2 && stderr.contains("namespace default has no pod"), "{code} {stderr}");
    let (code, _, stderr) = far.culvert(&["pods", "--node", &node, "--context", "other"])?;
    ensure!(code == 1 && stderr.contains("kubeconfig"), "{code} {stderr}");
    let (code, _, stderr) = far.culvert(&["pods", "--node", &node, "--proxy-admin-port", "1"])?;
    ensure!(code == 2 && stderr.contains("error forwarding port 1"), "{code} {stderr}");
    // A kubeconfig alone is a question to nobody.
    let (code, _, stderr) = far.culvert(&["pods"])?;
    ensure!(code == 64 && stderr.contains("--node"), "{code} {stderr}");

    let pod = format!("ztunnel-{node}");
    far.cluster.api.patch(PODS, AGENTS, &pod, &json!({"status": {"phase": "Pending"}}))?;
    let (code, _, stderr) = far.culvert(&pods)?;
    ensure!(code == 2 && stderr.contains(&format!("its pod {pod} is Pending")), "{code} {stderr}");
    let unready = agent_pod(&pod, &node, "Running", "False");
    far.cluster.api.apply(&unready)?;
    far.world.agent1.kill9()?;
    let (code, _, stderr) = far.culvert(&pods)?;
    ensure!(code == 2 && stderr.contains("(the pod is not ready)"), "{code} {stderr}");
    far.cluster.api.stop()?;
    let (code, _, stderr) = far.culvert(&pods)?;
    ensure!(code == 1 && stderr.contains("listing the pods"), "{code} {stderr}");
    Ok(())
}
