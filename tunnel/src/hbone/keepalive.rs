//! Notices a dead connection: a PING now and then, whose answer must come in time.

use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::time::{sleep, timeout};

/// Returns when the peer has stopped answering; with no `ping` it never does.
pub(super) async fn peer_lost(ping: Option<PingPong>, interval: Duration, limit: Duration) {
    let Some(mut ping) = ping else { return std::future::pending().await };
    loop {
        sleep(interval).await;
        match timeout(limit, ping.ping(Ping::opaque())).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
}
