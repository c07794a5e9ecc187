//! The control plane's part: a pod whose annotation says that it is captured takes tunnels, any other does not, and all nodes learn of it.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::Result;
use netns_tests::cluster::Cluster;

use crate::moving::PODS;
use crate::stage::Stage;

/// Between two looks: istiod gathers changes for as long before it tells of them.
const PERIOD: Duration = Duration::from_millis(100);
const CAPTURED: Option<&str> = Some("enabled");

/// Follows the annotations of the pods, until it is over.
pub(crate) fn follow(stage: &Stage, cluster: &Cluster, over: &AtomicBool) -> Result<()> {
    let mut mesh = stage.mesh.clone();
    while !over.load(Ordering::Acquire) {
        let mut has_changed = false;
        for name in PODS {
            let is_captured = cluster.says(stage.pod(name)?).as_deref() == CAPTURED;
            let protocol = if is_captured { "HBONE" } else { "TCP" };
            let workload = mesh.workload(name);
            has_changed |= workload.protocol != protocol;
            protocol.clone_into(&mut workload.protocol);
        }
        if has_changed {
            stage.tell_of(&mesh)?;
        }
        std::thread::sleep(PERIOD);
    }
    Ok(())
}
