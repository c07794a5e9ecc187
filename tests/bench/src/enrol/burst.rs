//! Pods that start all at once, as on a node that comes back: every call of the plugin is a process of its own, and all are begun together.

use std::sync::Barrier;
use std::time::{Duration, Instant};

use anyhow::{Result, anyhow};
use harness::mesh_file::Enroll;
use harness::{Node, Pod};

use super::call::Plugin;
use super::pods::NAMESPACE;

/// Pods that start.
pub(super) const AT_ONCE: usize = 50;

/// How long it took.
pub(super) struct Burst {
    /// Each call.
    pub(super) calls: Vec<Duration>,
    /// From the first start to the last answer.
    pub(super) all: Duration,
}

/// The pods; all of them are in the mesh.
pub(super) fn entries(node: &Node) -> Vec<Enroll> {
    (0..AT_ONCE).map(|number| Enroll::by_cni(&name(number), NAMESPACE, node)).collect()
}

fn name(number: usize) -> String {
    format!("at-once{number}")
}

impl Burst {
    /// Connects the pods, has all of them captured at once, and lets go of them.
    pub(super) fn measure(node: &Node) -> Result<Self> {
        let plugin = Plugin::of(node)?;
        let pod = |number| Ok(node.add_plain_pod(&name(number), NAMESPACE)?);
        let pods = (0..AT_ONCE).map(pod).collect::<Result<Vec<Pod>>>()?;
        let gate = Barrier::new(AT_ONCE + 1);
        let burst = std::thread::scope(|scope| {
            let call = |pod| {
                let (plugin, gate) = (&plugin, &gate);
                scope.spawn(move || {
                    gate.wait();
                    plugin.call("ADD", pod, NAMESPACE)
                })
            };
            let begun: Vec<_> = pods.iter().map(call).collect();
            gate.wait();
            let began = Instant::now();
            let ended =
                begun.into_iter().map(|call| call.join().map_err(|_| anyhow!("a thread panicked"))?);
            let calls = ended.collect::<Result<Vec<_>>>()?;
            Ok::<_, anyhow::Error>(Self { calls, all: began.elapsed() })
        })?;
        for pod in &pods {
            plugin.call("DEL", pod, NAMESPACE)?;
            pod.remove()?;
        }
        Ok(burst)
    }
}
