//! What is done once the start is over: most of the program's code was run for the last time then, and need not stay in memory.

use std::time::Duration;

/// How long after the start. Pods that were there are captured by then, and the mesh is known.
const AFTER: Duration = Duration::from_secs(10);

/// Lets go of the code of the start after a while. A failure costs memory, nothing else.
pub(crate) fn settle_later() {
    tokio::spawn(async {
        tokio::time::sleep(AFTER).await;
        match tokio::task::spawn_blocking(linux::program::let_go_of_code).await {
            Ok(Ok(bytes)) => tracing::debug!(bytes, "code of the start let go; what is used comes back"),
            Ok(Err(error)) => tracing::debug!(%error, "code of the start stays in memory"),
            // A panic has been told.
            Err(_) => {}
        }
    });
}
