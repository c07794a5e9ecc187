//! The agent under an istio-cni that captures with its own rules: pods come by the peers' protocol (ZDS,
//! `istio.workload.zds`), with their network namespaces, and connections by `REDIRECT`.
//!
//! This is how a cluster moves in steps: the agent takes the place of the peers' while their node component stays. Nothing is
//! captured by us here, nothing in a pod is changed but that it gets our listening sockets, and the plugin, the watch over
//! capture and the hand-over of sockets are not there. Invariant: a pod is served from the moment at which it is acknowledged
//! until it is deleted, or missing from a later snapshot; that the other side is away changes nothing for the pods it named.

mod conversation;
mod listeners;
mod pods;
mod serve;
mod sockets;

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

pub(crate) use pods::Pods;
pub(crate) use serve::serve;

use crate::readiness::Pending;

/// The first wait before the other side is looked for again, and the longest.
const BACKOFF: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(15));

/// Follows the other side on a thread of its own until the process ends. `pending` is done with the first snapshot.
///
/// # Errors
/// When there can be no thread.
pub(crate) fn follow(path: PathBuf, pods: Arc<Pods>, pending: Pending) -> std::io::Result<()> {
    let run = move || {
        let (mut pending, mut wait, mut told) = (Some(pending), BACKOFF.0, String::new());
        loop {
            let ended = conversation::hold(&path, &pods, &mut pending);
            pods.metrics().connected.set(0);
            let error = ended.error.to_string();
            if ended.had_a_snapshot {
                wait = BACKOFF.0;
            }
            // The same again and again would fill the log of a node that has no istio-cni yet.
            if told != error || ended.had_a_snapshot {
                tracing::warn!(path = %path.display(), error, "not connected to istio-cni; pods it has named are served on");
                told = error;
            }
            std::thread::sleep(wait.mul_f64(rand::random_range(0.8..1.2)));
            wait = BACKOFF.1.min(wait * 2);
        }
    };
    std::thread::Builder::new().name("zds".to_owned()).spawn(run).map(drop)
}
