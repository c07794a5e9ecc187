//! Pods that start while the Kubernetes API is gone: those of which the agent knows that they are in the mesh or outside, and one of which it
//! knows nothing, which must not start.

use std::time::Duration;

use anyhow::{Result, bail, ensure};
use harness::{Agent, MeshFile, Node, Pod, Run, Wire};
use netns_tests::cluster::Cluster;
use netns_tests::metric;

use super::call::{Answer, Plugin};
use super::kubernetes::until;
use super::pods::NAMESPACE;

/// Calls of a kind.
const CALLS: usize = 20;
/// Of pods that do not start, each of which takes its time.
const UNKNOWN: usize = 3;
/// The label of a pod in the mesh.
const AMBIENT: Option<&str> = Some("ambient");

/// What was measured.
pub(super) struct Outage {
    /// While the API answers.
    pub(super) before: Times,
    /// While it is gone.
    pub(super) meanwhile: Times,
    /// Of pods that nobody has told of, likewise.
    pub(super) unknown: Vec<Duration>,
    /// What the last of those was told.
    pub(super) told: String,
}

/// How long ADD took of pods that the agent knows.
pub(super) struct Times {
    pub(super) inside: Vec<Duration>,
    pub(super) outside: Vec<Duration>,
}

impl Outage {
    pub(super) fn measure() -> Result<Self> {
        let run = Run::start()?;
        let wire = Wire::new(&run)?;
        let node = wire.add_node("n1")?;
        let mut cluster = Cluster::start(&run, &wire.add_host("outside")?)?;
        let mesh = run.dir().join("n1.yaml");
        MeshFile::with_ca(&run.dir().join("ca")).write_for(&node, &mesh)?;
        let arguments = cluster.arguments();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let mut agent = Agent::spawn(&node, &mesh, &arguments)?;
        agent.wait_ready()?;
        let pods = Announced::new(&node, &cluster, &agent)?;

        let plugin = Plugin::of(&node)?;
        let before = pods.before.add(&plugin)?;
        cluster.api.stop()?;
        let meanwhile = pods.meanwhile.add(&plugin)?;
        let (mut unknown, mut last) = (Vec::new(), String::new());
        for pod in &pods.unknown {
            let Answer { took, said } = plugin.ask("ADD", pod, NAMESPACE)?;
            let Err(told) = said else { bail!("a pod of which nobody has told has started") };
            ensure!(told.contains("the Kubernetes API"), "it does not say why: {told}");
            unknown.push(took);
            last = told;
        }
        Ok(Self { before, meanwhile, unknown, told: last })
    }
}

/// Pods that the agent knows.
struct Known {
    inside: Vec<Pod>,
    outside: Vec<Pod>,
}

impl Known {
    fn add(&self, plugin: &Plugin) -> Result<Times> {
        let add =
            |pods: &[Pod]| pods.iter().map(|pod| plugin.call("ADD", pod, NAMESPACE)).collect::<Result<_>>();
        Ok(Times { inside: add(&self.inside)?, outside: add(&self.outside)? })
    }
}

/// Pods that are connected, and so far not captured.
struct Announced {
    before: Known,
    meanwhile: Known,
    /// Those of which it knows nothing.
    unknown: Vec<Pod>,
}

impl Announced {
    /// Connects them, and waits until the agent has heard of them.
    fn new(node: &Node, cluster: &Cluster, agent: &Agent) -> Result<Self> {
        let pod = |name: String| Ok(node.add_plain_pod(&name, NAMESPACE)?);
        let announced = |name: String, mode: Option<&str>| -> Result<Pod> {
            let pod = pod(name)?;
            cluster.announce(pod.name(), node.name(), &pod.sandbox().container_id, mode)?;
            Ok(pod)
        };
        let make = |time: &str| -> Result<Known> {
            let outside = (0..CALLS).map(|number| announced(format!("out-{time}{number}"), None));
            let outside = outside.collect::<Result<_>>()?;
            let inside = (0..CALLS).map(|number| announced(format!("in-{time}{number}"), AMBIENT));
            Ok(Known { inside: inside.collect::<Result<_>>()?, outside })
        };
        let (before, meanwhile) = (make("before")?, make("meanwhile")?);
        let unknown = (0..UNKNOWN).map(|number| pod(format!("unknown{number}"))).collect::<Result<_>>()?;
        // The watch tells in order, and the last is one that is in the mesh.
        let waiting = (2 * CALLS) as f64;
        until(|| metric(agent, "culvert_pods", &[("state", "pending")]).is_ok_and(|count| count == waiting))?;
        Ok(Self { before, meanwhile, unknown })
    }
}
