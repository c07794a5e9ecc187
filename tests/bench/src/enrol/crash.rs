//! A crash, as the pods of its node see it: how long after the start of the next agent the first connection is served again, and how long until
//! each pod is captured and proven anew. Meanwhile they are refused, which is looked at each time.

use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use harness::mesh_file::{Enroll, Workload};
use harness::{Agent, MeshFile, Pod, Run, Wire};

use super::kubernetes::until;
use super::pods::NAMESPACE;
use crate::figures::Figures;
use crate::stats::Spread;

/// Milliseconds from exec to a connection that is served again, for half of the crashes.
const SERVED: f64 = 1000.0;
/// Pods of a usual node.
const PODS: usize = 30;
const PORT: u16 = 8080;

/// Kills and starts an agent so often.
pub(super) fn measure(rounds: usize, figures: &mut Figures) -> Result<()> {
    let run = Run::start()?;
    let wire = Wire::new(&run)?;
    let node = wire.add_node("n1")?;
    let pods = (0..PODS).map(|number| Ok(node.add_plain_pod(&format!("p{number}"), NAMESPACE)?));
    let pods = pods.collect::<Result<Vec<Pod>>>()?;
    let [client, server, ..] = pods.as_slice() else { bail!("a node of two pods at least") };
    let _app = server.serve_http(PORT)?;
    let mut mesh = MeshFile::with_ca(&run.dir().join("ca"));
    mesh.enroll = pods.iter().map(Enroll::running).collect();
    mesh.workloads = pods.iter().map(Workload::of_pod).collect();
    let path = run.dir().join("n1.yaml");
    mesh.write_for(&node, &path)?;
    let mut agent = Agent::start(&node, &path)?;
    let to = SocketAddr::new(IpAddr::V4(server.ipv4()), PORT);
    let is_served = || client.attempt(to, "/").is_ok_and(|attempt| attempt.is_ok());
    until(is_served).context("before any crash")?;
    let (mut served, mut whole) = (Vec::new(), Vec::new());
    for round in 0..rounds {
        agent.kill9()?;
        let attempt = client.attempt(to, "/")?;
        ensure!(attempt.is_refused(), "crash {round}: {attempt:?}");
        let began = Instant::now();
        agent.start_anew()?;
        until(is_served).with_context(|| format!("after crash {round}"))?;
        served.push(millis(began.elapsed()));
        agent.wait_ready()?;
        whole.push(millis(began.elapsed()));
    }
    let median = |times| Spread::of(times).median;
    let what = format!("after a crash: exec to a connection served, {PODS} pods");
    figures.at_most(&what, median(served), SERVED, "ms");
    figures.note("after a crash: exec to all of them captured anew", median(whole), "ms");
    Ok(())
}

fn millis(time: Duration) -> f64 {
    time.as_secs_f64() * 1e3
}
