//! Pods of two nodes in one mesh, made by containerd through bridge, portmap and the plugin.

use std::net::SocketAddr;

use anyhow::{Context as _, Result, bail, ensure};
use cri_tests::leftovers::Empty;
use cri_tests::{CriNode, CriPod, HTTP, LIMIT, NAMESPACE, PodSpec};
use harness::client::{self, Attempt};
use harness::inside::in_netns;
use harness::wait::eventually_ok;
use harness::wire::Station;
use harness::{MeshFile, Run, Wire};

const HOST_PORT: u16 = 18080;
const CHAIN: [&str; 3] = ["bridge", "portmap", "culvert-cni"];

#[test]
fn pods_of_a_real_runtime_are_in_the_mesh_host_ports_included_and_leave_nothing() -> Result<()> {
    let run = Run::start()?;
    let wire = Wire::new(&run)?;
    let (n1, mut n2) = (CriNode::start(&wire, "n1")?, CriNode::start(&wire, "n2")?);
    let outside = wire.add_host("outside")?;
    let mut mesh = MeshFile::with_ca(&run.dir().join("ca"));
    mesh.enroll = vec![n1.enrol("client"), n2.enrol("server")];
    write(&mesh, [&n1, &n2])?;
    let (agent1, agent2) = (n1.start_agent()?, n2.start_agent()?);
    let (empty1, empty2) = (Empty::look(&n1)?, Empty::look(&n2)?);

    let client = n1.pod_with_server(&PodSpec::named("client"))?;
    let spec = PodSpec { host_port: Some((HOST_PORT, HTTP)), ..PodSpec::named("server") };
    let server = n2.pod_with_server(&spec)?;
    agent1.wait_for_log(&["pod enrolled", "demo/client"], LIMIT)?;
    agent2.wait_for_log(&["pod enrolled", "demo/server"], LIMIT)?;
    let cookies = [client.cookie()?, server.cookie()?];
    added_in_order(&n2, &server)?;

    mesh.workloads = vec![client.workload(&n1.node), server.workload(&n2.node)];
    write(&mesh, [&n1, &n2])?;
    for to in server.servers() {
        let peer = eventually_ok("the server to answer", LIMIT, || ok(&client.attempt(to)?))?;
        ensure!(client.ips.iter().any(|ip| peer.contains(&ip.to_string())), "the server saw {peer}");
    }
    let identity = "spiffe://cluster.local/ns/demo/sa/client";
    agent2.wait_for_log(&["connection complete", "inbound", identity], LIMIT)?;

    // Through the node's port a stranger reaches the pod, until a policy says who may.
    let (v4, v6) = n2.node.addresses();
    let hosts = [SocketAddr::from((v4, HOST_PORT)), SocketAddr::from((v6, HOST_PORT))];
    for host in hosts {
        eventually_ok(&format!("{host} to answer"), LIMIT, || ok(&knock(&outside, host)?))?;
    }
    mesh.policies.push(serde_json::json!({
        "name": "only-client", "namespace": NAMESPACE, "scope": "Namespace", "action": "Allow",
        "rules": [[[{ "principals": [{ "Exact": "cluster.local/ns/demo/sa/client" }] }]]],
    }));
    write(&mesh, [&n1, &n2])?;
    for host in hosts {
        eventually_ok(&format!("{host} to refuse a stranger"), LIMIT, || {
            let attempt = knock(&outside, host)?;
            ensure!(attempt.is_refused(), "{attempt:?}");
            Ok(())
        })?;
    }
    answered(&client, &server).context("a client that may")?;

    // A runtime that is started anew knows its pods, which never noticed.
    n2.containerd.restart()?;
    answered(&client, &server).context("after containerd was restarted")?;

    n1.remove(&client)?;
    n2.remove(&server)?;
    removed_backwards_and_twice(&n2, &server)?;
    empty1.wait(&n1, &cookies)?;
    empty2.wait(&n2, &cookies)
}

fn write(mesh: &MeshFile, nodes: [&CriNode; 2]) -> Result<()> {
    nodes.iter().try_for_each(|node| mesh.write_for(&node.node, &node.mesh_path()))
}

fn knock(from: &Station, to: SocketAddr) -> Result<Attempt> {
    Ok(client::attempt(in_netns(&from.netns, || client::connect(to, client::LIMIT))?, "/"))
}

/// The peer that the server saw.
fn ok(attempt: &Attempt) -> Result<String> {
    let Attempt::Answered(reply) = attempt else { bail!("{attempt:?}") };
    ensure!(reply.status == 200, "{reply:?}");
    Ok(reply.field("peer"))
}

fn answered(client: &CriPod, server: &CriPod) -> Result<()> {
    server.servers().into_iter().try_for_each(|to| ok(&client.attempt(to)?).map(drop))
}

/// Each plugin once, in the chain's order, ours with what a kubelet's runtime tells.
fn added_in_order(node: &CriNode, pod: &CriPod) -> Result<()> {
    let mut order = node.calls.order("ADD", &pod.id)?;
    order.retain(|plugin| CHAIN.contains(&plugin.as_str()));
    ensure!(order == CHAIN, "{order:?}");
    let calls = node.calls.of(Some(&pod.id))?;
    let ours = calls.iter().find(|call| call.plugin == "culvert-cni").context("the plugin was not called")?;
    let uid = "K8S_POD_UID=";
    for part in ["K8S_POD_NAME=server", "K8S_POD_NAMESPACE=demo", uid, "IgnoreUnknown="] {
        ensure!(ours.arguments.contains(part), "{ours:?}");
    }
    ensure!(ours.netns == pod.netns.display().to_string(), "{ours:?}");
    Ok(())
}

/// First with the namespace, and again when it is gone.
fn removed_backwards_and_twice(node: &CriNode, pod: &CriPod) -> Result<()> {
    let calls = node.calls.of(Some(&pod.id))?;
    let removals: Vec<_> = calls.iter().filter(|call| call.verb == "DEL").collect();
    let ours: Vec<_> = removals.iter().filter(|call| call.plugin == "culvert-cni").collect();
    let (Some(first), Some(last)) = (ours.first(), ours.last()) else { bail!("no DEL: {calls:?}") };
    ensure!(ours.len() >= 2 && !first.netns.is_empty() && last.netns.is_empty(), "{ours:?}");
    let place = |plugin: &str| removals.iter().position(|call| call.plugin == plugin);
    ensure!(place("culvert-cni") < place("portmap") && place("portmap") < place("bridge"), "{removals:?}");
    Ok(())
}
