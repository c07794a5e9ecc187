//! Pods that are in the mesh because Kubernetes says so: labels that change on running pods, an API that goes away, and the annotation by
//! which the control plane learns of capture. The API server is a stand-in (`tests/kube-api`); a real one is tried outside CI.

use std::time::Duration;

use anyhow::{Context as _, Result, ensure};
use harness::{Agent, CniError, Pod, command, eventually};
use kube_api::PODS;
use netns_tests::cluster::{Cluster, PodCgroup};
use netns_tests::{Bare, HTTP, LIMIT, at, metric, until_answered};
use serde_json::json;

/// Until lost capture is found and told.
const FOUND: Duration = Duration::from_secs(30);

/// Two nodes of a cluster, of whose pods none is in the mesh.
struct World {
    agent1: Agent,
    agent2: Agent,
    client: Pod,
    server: Pod,
    cluster: Cluster,
    cgroups: Vec<PodCgroup>,
    bare: Rest,
}

/// What has to live as long.
struct Rest {
    nodes: [harness::Node; 2],
    mesh_paths: [std::path::PathBuf; 2],
    _outside: harness::wire::Station,
    _apps: Vec<harness::App>,
    _plain: [Pod; 2],
    _wire: std::sync::Arc<harness::Wire>,
    _run: std::sync::Arc<harness::Run>,
}

impl World {
    fn new(more: &[&str]) -> Result<Self> {
        let bare = Bare::new()?;
        let cluster = Cluster::start(&bare.run, &bare.outside)?;
        let pods = [&bare.client, &bare.neighbour, &bare.server, &bare.plain];
        let cgroups = pods.iter().zip(&bare.apps).map(|(pod, app)| cluster.run(pod, app));
        let cgroups = cgroups.collect::<Result<Vec<_>>>()?;
        bare.write_mesh()?;
        let arguments = cluster.arguments();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).chain(more.iter().copied()).collect();
        let mesh_paths = [bare.mesh_path(&bare.nodes[0]), bare.mesh_path(&bare.nodes[1])];
        let mut agent1 = Agent::spawn(&bare.nodes[0], &mesh_paths[0], &arguments)?;
        let mut agent2 = Agent::spawn(&bare.nodes[1], &mesh_paths[1], &arguments)?;
        agent1.wait_ready()?;
        agent2.wait_ready()?;
        let Bare { nodes, wire, client, neighbour, server, plain, outside, apps, run, .. } = bare;
        let bare = Rest {
            nodes,
            mesh_paths,
            _outside: outside,
            _apps: apps,
            _plain: [neighbour, plain],
            _wire: wire,
            _run: run,
        };
        Ok(Self { agent1, agent2, client, server, cluster, cgroups, bare })
    }

    /// Whether what the client says goes through the tunnel, seen by its agent's log of the connection.
    fn is_captured(&self, agent: &Agent) -> Result<bool> {
        Ok(metric(agent, "culvert_pods", &[("state", "enrolled")])? >= 1.0)
    }

    fn until_enrolled(&self, count: f64) -> Result<()> {
        let enrolled = || metric(&self.agent1, "culvert_pods", &[("state", "enrolled")]).ok();
        eventually(&format!("{count} pods of the first node to be enrolled"), LIMIT, || {
            (enrolled()? == count).then_some(())
        })
        .with_context(|| self.agent1.log())
    }
}

#[test]
fn a_label_on_a_running_pod_brings_it_in_and_out_without_a_restart() -> Result<()> {
    let world = World::new(&[])?;
    let targets = at(world.server.addresses(), HTTP);
    until_answered(&world.client, targets[0])?;
    ensure!(!world.is_captured(&world.agent1)?);
    for _ in 0..2 {
        for pod in [&world.client, &world.server] {
            world.cluster.label(pod, Some("ambient"))?;
            world.cluster.until_says(pod, Some("enabled"))?;
        }
        world.until_enrolled(1.0)?;
        for target in targets {
            let reply = until_answered(&world.client, target)?;
            ensure!(reply.field("app") == "server");
        }
        world.agent2.wait_for_log(&["sa/client", "sa/server", "inbound"], LIMIT)?;
        for pod in [&world.client, &world.server] {
            world.cluster.label(pod, Some("none"))?;
            world.cluster.until_says(pod, None)?;
        }
        world.until_enrolled(0.0)?;
        for target in targets {
            until_answered(&world.client, target)?;
        }
    }
    let count = |what: &str| world.agent1.log_lines(&[what, "demo/client"]).len();
    eventually("two enrolments and two releases in the log", LIMIT, || {
        (count("pod enrolled") == 2 && count("pod released") == 2).then_some(())
    })
    .with_context(|| world.agent1.log())?;
    Ok(())
}

#[test]
fn a_label_of_the_namespace_brings_all_its_pods_in_but_for_those_that_decline() -> Result<()> {
    let world = World::new(&[])?;
    let [neighbour, plain] = &world.bare._plain;
    world.cluster.label(neighbour, Some("none"))?;
    world.cluster.change(plain, &json!({"metadata": {"annotations": {"sidecar.istio.io/status": "{}"}}}))?;
    world.cluster.label_namespace(Some("ambient"))?;
    world.cluster.until_says(&world.client, Some("enabled"))?;
    world.cluster.until_says(&world.server, Some("enabled"))?;
    ensure!(world.cluster.says(neighbour).is_none() && world.cluster.says(plain).is_none());
    world.cluster.label(neighbour, None)?;
    world.cluster.until_says(neighbour, Some("enabled"))?;
    world.until_enrolled(2.0)?;
    let list = std::fs::read_to_string(world.bare.nodes[0].agent_dir().join("ambient.json"))?;
    let list: serde_json::Value = serde_json::from_str(&list)?;
    ensure!(list["namespaces"] == json!(["demo"]) && list["complete"] == false, "{list}");
    world.cluster.label_namespace(None)?;
    for pod in [&world.client, &world.server, neighbour] {
        world.cluster.until_says(pod, None)?;
    }
    world.until_enrolled(0.0)
}

#[test]
fn an_api_that_is_away_changes_nothing_not_even_for_an_agent_that_starts_meanwhile() -> Result<()> {
    let mut world = World::new(&[])?;
    world.cluster.label_namespace(Some("ambient"))?;
    for pod in [&world.client, &world.server] {
        world.cluster.until_says(pod, Some("enabled"))?;
    }
    let targets = at(world.server.addresses(), HTTP);
    world.cluster.api.stop()?;
    for target in targets {
        until_answered(&world.client, target)?;
    }
    // The next agent knows its pods by their records.
    world.agent1.kill9()?;
    ensure!(world.client.attempt(targets[0], "/")?.is_refused());
    let arguments = world.cluster.arguments();
    let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
    world.agent1 = Agent::spawn(&world.bare.nodes[0], &world.bare.mesh_paths[0], &arguments)?;
    for target in targets {
        until_answered(&world.client, target).with_context(|| world.agent1.log())?;
    }
    let ready = world.agent1.get(15021, "/healthz/ready")?;
    ensure!(
        ready.status != 200 && ready.body.contains("pods and namespaces of the Kubernetes API"),
        "{ready:?}"
    );
    // What happened meanwhile is learned by a list: the versions of before are gone.
    let client = world.client.name().to_owned();
    world.cluster.api.delete(PODS, "demo", &client);
    world.cluster.api.compact();
    world.cluster.resume()?;
    world.agent1.wait_ready()?;
    world.agent1.wait_for_log(&["pod released", "demo/client"], LIMIT)?;
    world.agent2.wait_for_log(&["Kubernetes API does not tell"], LIMIT)?;
    world.cluster.label_namespace(None)?;
    world.cluster.until_says(&world.server, None)
}

#[test]
fn a_deletion_that_was_missed_and_the_end_of_a_pod_release_it() -> Result<()> {
    let world = World::new(&["--kubernetes-resync=1s"])?;
    let [neighbour, _] = &world.bare._plain;
    world.cluster.label_namespace(Some("ambient"))?;
    for pod in [&world.client, neighbour, &world.server] {
        world.cluster.until_says(pod, Some("enabled"))?;
    }
    world.cluster.change(neighbour, &json!({"status": {"phase": "Succeeded"}}))?;
    world.cluster.until_says(neighbour, None)?;
    world.cluster.api.delete_silently(PODS, "demo", world.client.name());
    world.until_enrolled(0.0)?;
    world.agent1.wait_for_log(&["pod released", "demo/client"], LIMIT)?;
    ensure!(world.cluster.says(&world.server).as_deref() == Some("enabled"));
    Ok(())
}

#[test]
fn the_annotation_is_taken_back_while_capture_is_lost() -> Result<()> {
    let world = World::new(&[])?;
    world.cluster.label(&world.client, Some("ambient"))?;
    world.cluster.until_says(&world.client, Some("enabled"))?;
    // Somebody's rule leads the pod's connections elsewhere; it is not the agent's to remove.
    let name = world.client.netns().file_name().context("a namespace has a name")?.to_string_lossy();
    command::ip(&format!("-n {name} rule add pref 31 lookup main"))?;
    let what = "the annotation to say that the pod is not captured";
    eventually(what, FOUND, || {
        (world.cluster.says(&world.client).as_deref() == Some("pending")).then_some(())
    })?;
    command::ip(&format!("-n {name} rule del pref 31"))?;
    eventually("the annotation to be back", 3 * FOUND, || {
        (world.cluster.says(&world.client).as_deref() == Some("enabled")).then_some(())
    })
    .with_context(|| world.agent1.log())
}

#[test]
fn a_pod_that_starts_is_decided_about_by_what_kubernetes_says_and_held_back_while_it_says_nothing()
-> Result<()> {
    let world = World::new(&[])?;
    let [n1, _] = &world.bare.nodes;
    let uid = |name: &str| format!("{}-n1-{name}", world.bare._run.id());
    world.cluster.announce("in", "n1", &uid("in"), Some("ambient"))?;
    world.cluster.announce("out", "n1", &uid("out"), None)?;
    world.cluster.announce("stale", "n1", "another-pod-of-that-name", None)?;
    let inside = n1.add_pod("in", "demo")?;
    world.cluster.until_says(&inside, Some("enabled"))?;
    ensure!(inside.check().is_ok());
    let outside = n1.add_pod("out", "demo")?;
    ensure!(world.cluster.says(&outside).is_none());
    world.until_enrolled(1.0)?;
    for unknown in ["nobody", "stale"] {
        match n1.add_pod(unknown, "demo") {
            Err(CniError::Plugin { code: 11, msg, .. }) => {
                ensure!(msg.contains("has not heard of it from the Kubernetes API"), "{msg}");
            }
            other => anyhow::bail!("{unknown}: {other:?}"),
        }
    }
    // Told within the time that a pod waits, it starts.
    std::thread::scope(|scope| -> Result<()> {
        let started = scope.spawn(|| n1.add_pod("late", "demo"));
        world.cluster.announce("late", "n1", &uid("late"), Some("ambient"))?;
        let late = started.join().map_err(|_| anyhow::anyhow!("the plugin's thread panicked"))??;
        world.cluster.until_says(&late, Some("enabled"))
    })?;
    inside.remove()?;
    world.until_enrolled(1.0)?;
    ensure!(world.cgroups.len() == 4);
    Ok(())
}
