//! The end of the agent: what is served to its end, and what stays behind.
//!
//! An agent that is told to end leaves its pods captured, and refused, for the next one; only where it is known that none will come does it
//! take everything off the node, pods first. One that has handed its pods over serves what it has accepted, and ends with that.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tokio::time::timeout;
use tunnel::Tunnel;

use crate::config::Process;
use crate::detach;
use crate::enrollment::Enroller;
use crate::handover::{Estate, Holdings};
use crate::install::Installation;

/// How long the plugin's requests that are being answered may take to end.
const QUIET: Duration = Duration::from_secs(30);

/// What is looked at, or ended, at the end.
pub(crate) struct Ending<'a> {
    /// Limits and places.
    pub(crate) process: &'a Process,
    /// What serves connections.
    pub(crate) tunnel: Arc<Tunnel>,
    /// Notified by who asks for the end.
    pub(crate) quit: Arc<Notify>,
    /// The pods.
    pub(crate) enroller: Arc<Enroller>,
    /// The plugin on this node.
    pub(crate) installation: Installation,
    /// What ends when everything is handed over.
    pub(crate) background: JoinSet<io::Result<()>>,
}

impl Ending<'_> {
    /// Waits for the end, and brings it about.
    pub(crate) async fn wait(self, estate: &Estate) -> anyhow::Result<()> {
        tokio::select! {
            told = until_told(&self.quit) => {
                told?;
                self.told(estate).await
            }
            () = estate.given() => self.handed_over().await,
        }
    }

    /// The agent was told to end.
    async fn told(self, estate: &Estate) -> anyhow::Result<()> {
        if self.installation.is_to_go().await {
            return match estate.withhold().await {
                Some(holdings) => self.for_good(holdings).await,
                // Whoever wanted to remove it was told wrongly: a successor has come meanwhile.
                None => self.handed_over().await,
            };
        }
        wind_down(&self.tunnel, self.process.termination_deadline, &self.quit).await?;
        tracing::info!("agent ends; captured pods are refused until the next one starts");
        Ok(())
    }

    /// Everything was handed over to another agent.
    async fn handed_over(mut self) -> anyhow::Result<()> {
        self.installation.leave().await;
        self.background.shutdown().await;
        drain(&self.tunnel, self.process.drain_limit).await
    }

    /// Takes plugin, pods and capture off the node; the place is held until that is done.
    async fn for_good(mut self, holdings: Holdings) -> anyhow::Result<()> {
        // The entry first: no runtime asks for capture that is about to end.
        self.installation.remove().await;
        if timeout(QUIET, holdings.cni.pause()).await.is_err() {
            tracing::warn!("requests of the CNI plugin do not come to an end");
        }
        let left = self.enroller.leave().await;
        wind_down(&self.tunnel, self.process.termination_deadline, &self.quit).await?;
        left.put_back().await;
        detach::clear(&self.process.place)?;
        tracing::info!("agent ends, and so does capture on this node");
        Ok(())
    }
}

/// Serves what is open, after everything else was handed over.
async fn drain(tunnel: &Tunnel, limit: Duration) -> anyhow::Result<()> {
    const PERIOD: Duration = Duration::from_millis(200);
    let mut terminate = signal(SignalKind::terminate())?;
    let deadline = tokio::time::Instant::now() + limit;
    loop {
        let open = tunnel.connections().len();
        if tunnel.is_idle() {
            tracing::info!("agent ends; all it had accepted is served");
            return Ok(());
        }
        tokio::select! {
            () = tokio::time::sleep_until(deadline) => {
                tracing::warn!(open, "agent ends; connections were open for longer than --drain-limit allows");
                return Ok(());
            }
            _ = terminate.recv() => tracing::info!(open, "told to end, which it does with the last open connection"),
            interrupted = tokio::signal::ctrl_c() => return Ok(interrupted?),
            () = tokio::time::sleep(PERIOD) => {}
        }
    }
}

/// Goes on serving what is open after the agent was told to end, for as long as it may; being told again ends it at once.
pub(crate) async fn wind_down(tunnel: &Tunnel, limit: Duration, quit: &Notify) -> anyhow::Result<()> {
    const PERIOD: Duration = Duration::from_millis(50);
    let open = tunnel.connections().len();
    tracing::info!(open, limit = ?limit, "told to end; open connections are served to their end, within the limit");
    let done = async {
        while !tunnel.connections().is_empty() {
            tokio::time::sleep(PERIOD).await;
        }
    };
    tokio::select! {
        outcome = tokio::time::timeout(limit, done) => if outcome.is_err() && !limit.is_zero() {
            let open = tunnel.connections().len();
            tracing::warn!(open, "connections were open for longer than --connection-termination-deadline allows");
        },
        told = until_told(quit) => told?,
    }
    Ok(())
}

/// Waits for a signal to end, or for a request to do so.
pub(crate) async fn until_told(quit: &Notify) -> anyhow::Result<()> {
    let mut terminate = signal(SignalKind::terminate())?;
    tokio::select! {
        () = quit.notified() => {}
        _ = terminate.recv() => {}
        interrupted = tokio::signal::ctrl_c() => interrupted?,
    }
    Ok(())
}
