//! Pods that are connected, enrolled and released one after the other, with every call timed.

use std::time::{Duration, Instant};

use anyhow::Result;
use harness::Node;
use harness::mesh_file::Enroll;

use super::call::{EXCLUDED, Plugin};

pub(super) const NAMESPACE: &str = "demo";

/// How long each call took.
#[derive(Debug, Default)]
pub(super) struct Pods {
    pub(super) start: Vec<Duration>,
    pub(super) bridge: Vec<Duration>,
    pub(super) captured: Vec<Duration>,
    pub(super) others: Vec<Duration>,
    pub(super) excluded: Vec<Duration>,
    pub(super) check: Vec<Duration>,
    pub(super) del: Vec<Duration>,
}

/// The pods that are in the mesh; as many others are not.
pub(super) fn entries(node: &Node, count: usize) -> Vec<Enroll> {
    (0..count).map(|number| Enroll::by_cni(&name(number), NAMESPACE, node)).collect()
}

fn name(number: usize) -> String {
    format!("in{number}")
}

impl Pods {
    /// Makes so many pods in the mesh, and as many beside it. Those that were made stay until the end, as on a node.
    pub(super) fn measure(node: &Node, count: usize) -> Result<Self> {
        let plugin = Plugin::of(node)?;
        let (mut times, mut pods) = (Self::default(), Vec::new());
        for number in 0..count {
            let began = Instant::now();
            let other = node.add_plain_pod(&format!("out{number}"), NAMESPACE)?;
            // With the making of the namespace and what nsenter takes; for comparison only.
            times.bridge.push(began.elapsed());
            let pod = node.add_plain_pod(&name(number), NAMESPACE)?;
            times.start.push(plugin.call("VERSION", &pod, NAMESPACE)?);
            times.captured.push(plugin.call("ADD", &pod, NAMESPACE)?);
            times.others.push(plugin.call("ADD", &other, NAMESPACE)?);
            times.excluded.push(plugin.call("ADD", &other, EXCLUDED)?);
            times.check.push(plugin.call("CHECK", &pod, NAMESPACE)?);
            other.remove()?;
            pods.push(pod);
        }
        for pod in &pods {
            times.del.push(plugin.call("DEL", pod, NAMESPACE)?);
        }
        Ok(times)
    }
}
