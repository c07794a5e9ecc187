//! What Kubernetes has to wait for: from the label on a running pod to the annotation that says it is captured, the memory of a node, and the start of an
//! agent on one that is full of pods. The API server is a stand-in, in this process.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use harness::{Agent, App, MeshFile, Node, Pod, Run, Wire};
use netns_tests::cluster::{Cluster, PodCgroup};
use netns_tests::metric;

use super::footprint::Footprint;
use crate::figures::Figures;
use crate::stats::percentiles;

/// Milliseconds from label to enrolled, for nearly all.
const LABEL: f64 = 100.0;
/// Milliseconds from the start of an agent until every pod of a full node is captured.
const START: f64 = 2000.0;
/// Megabytes of all that is ours on a usual node.
const MEMORY: f64 = 16.0;
/// Pods of a usual node.
const USUAL: usize = 30;
/// After this long the code of the start is let go, and what was freed has gone back.
const SETTLED: Duration = Duration::from_secs(15);
/// Pods of a full one.
const FULL: usize = 250;
const LIMIT: Duration = Duration::from_secs(120);
/// Between two looks.
const PAUSE: Duration = Duration::from_micros(200);

/// A node with pods that run, in a cluster.
struct Site {
    node: Node,
    mesh: PathBuf,
    pods: Vec<(Pod, App, PodCgroup)>,
    cluster: Cluster,
    _wire: Arc<Wire>,
    _run: Arc<Run>,
}

impl Site {
    fn new(count: usize) -> Result<Self> {
        let run = Run::start()?;
        let wire = Wire::new(&run)?;
        let (node, outside) = (wire.add_node("n1")?, wire.add_host("outside")?);
        let cluster = Cluster::start(&run, &outside)?;
        let mesh = run.dir().join("n1.yaml");
        MeshFile::with_ca(&run.dir().join("ca")).write_for(&node, &mesh)?;
        let mut pods = Vec::new();
        for number in 0..count {
            let pod = node.add_plain_pod(&format!("p{number}"), "demo")?;
            let app = pod.start(&["echo", "--port", "8080"])?;
            let cgroup = cluster.run(&pod, &app)?;
            pods.push((pod, app, cgroup));
        }
        Ok(Self { node, mesh, pods, cluster, _wire: wire, _run: run })
    }

    /// Starts an agent; returns once it is ready, and how long that took.
    fn start(&self) -> Result<(Agent, Duration)> {
        let arguments = self.cluster.arguments();
        let arguments: Vec<&str> = arguments.iter().map(String::as_str).collect();
        let began = Instant::now();
        let mut agent = Agent::spawn(&self.node, &self.mesh, &arguments)?;
        agent.wait_ready()?;
        Ok((agent, began.elapsed()))
    }
}

/// Measures all of it.
pub(super) fn measure(rounds: usize, figures: &mut Figures) -> Result<()> {
    // Each takes some seconds: who leaves is served for a while longer.
    labels(rounds.min(60), figures).context("labels")?;
    footprint(figures).context("memory")?;
    full_node(figures).context("a full node")
}

fn footprint(figures: &mut Figures) -> Result<()> {
    let site = Site::new(USUAL)?;
    site.cluster.label_namespace(Some("ambient"))?;
    let (agent, _) = site.start()?;
    all_enrolled(&agent, USUAL)?;
    // What a node has to spare is told by the hours after the start, not by the start.
    std::thread::sleep(SETTLED);
    let Footprint { rss, pss, bpf } =
        Footprint::measure(agent.pid().context("an agent runs")?, &site.node.bpffs())?;
    figures.note("memory of the agent with 30 pods: PSS", pss, "MiB");
    figures.note("memory of the agent with 30 pods: RSS", rss, "MiB");
    figures.note("memory of its programs and maps", bpf, "MiB");
    figures.at_most("memory of everything on a node with 30 pods", rss + bpf, MEMORY, "MiB");
    Ok(())
}

fn labels(rounds: usize, figures: &mut Figures) -> Result<()> {
    let site = Site::new(1)?;
    let (pod, ..) = site.pods.first().context("one pod")?;
    let (agent, _) = site.start()?;
    let (mut into, mut out) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let began = Instant::now();
        site.cluster.label(pod, Some("ambient"))?;
        until(|| site.cluster.says(pod).as_deref() == Some("enabled"))?;
        into.push(began.elapsed());
        let began = Instant::now();
        site.cluster.label(pod, None)?;
        until(|| site.cluster.says(pod).is_none())?;
        out.push(began.elapsed());
        until(|| metric(&agent, "culvert_pods", &[("state", "enrolled")]).is_ok_and(|count| count == 0.0))?;
    }
    let ((half, most), (half_out, most_out)) = (percentiles(&into), percentiles(&out));
    figures.note("label on a running pod, to enrolled and told: p50", half, "ms");
    figures.at_most("label on a running pod, to enrolled and told: p99", most, LABEL, "ms");
    figures.note("label taken away, to the annotation gone: p50", half_out, "ms");
    figures.note("label taken away, to the annotation gone: p99", most_out, "ms");
    Ok(())
}

fn full_node(figures: &mut Figures) -> Result<()> {
    let site = Site::new(FULL)?;
    site.cluster.label_namespace(Some("ambient"))?;
    let (mut agent, first) = site.start()?;
    all_enrolled(&agent, FULL)?;
    agent.kill9()?;
    drop(agent);
    let (agent, again) = site.start()?;
    all_enrolled(&agent, FULL)?;
    let millis = |time: Duration| time.as_secs_f64() * 1e3;
    figures.note("start on a node of 250 running pods, none captured", millis(first), "ms");
    figures.at_most("start on a node of 250 pods, all captured before", millis(again), START, "ms");
    Ok(())
}

fn all_enrolled(agent: &Agent, wanted: usize) -> Result<()> {
    let count = metric(agent, "culvert_pods", &[("state", "enrolled")])?;
    ensure!(count == wanted as f64, "{count} of {wanted} pods are enrolled when the agent is ready");
    Ok(())
}

/// Waits until it is so.
pub(super) fn until(mut is: impl FnMut() -> bool) -> Result<()> {
    let began = Instant::now();
    while !is() {
        ensure!(began.elapsed() < LIMIT, "not within {LIMIT:?}");
        std::thread::sleep(PAUSE);
    }
    Ok(())
}
