//! The installation on a node: the plugin, its entry in the runtime's network configuration, and what the plugin needs.
//!
//! [`Plan`] is what is to be there, [`keeper`] keeps it there while the agent runs, [`removal`] takes it off again. Invariant:
//! the agent's end removes nothing unless it is known that no other one will come ([`wanted`]); new pods of the mesh then wait.

mod chain;
mod command;
mod configurations;
mod entry;
mod fight;
mod files;
mod keeper;
mod kubeconfig;
mod metrics;
mod plan;
mod removal;
#[cfg(test)]
mod tests;
mod wanted;

use std::sync::Arc;
use std::time::Duration;

use prometheus_client::registry::Registry;
use tokio::task::JoinHandle;

pub(crate) use chain::Form;
pub(crate) use command::{install, uninstall};
pub(crate) use entry::{AgentPod, Entry};
pub(crate) use kubeconfig::{Api, NAME as KUBECONFIG};
pub(crate) use plan::{Plan, Style};
pub(crate) use wanted::Owner;

use self::keeper::Keeper;
use self::metrics::InstallMetrics;
use self::wanted::Verdict;
use crate::config::Install;
use crate::readiness::Readiness;

/// How long the Kubernetes API is asked at the end whether another agent is to come.
const LOOK: Duration = Duration::from_secs(5);

/// The installation of a running agent, which may be none at all.
pub(crate) struct Installation {
    plan: Option<Arc<Plan>>,
    keeper: Option<Keeper>,
    keeping: Option<JoinHandle<()>>,
    owner: Option<Arc<dyn Owner>>,
    node: String,
}

impl Installation {
    /// What the agent is to keep installed. Nothing is done yet, but the agent is not ready until all is there.
    ///
    /// `owner` knows whether another agent is to come to the node of this name after this one.
    pub(crate) fn prepare(
        install: &Install,
        node: &str,
        owner: Option<Arc<dyn Owner>>,
        readiness: &Readiness,
        registry: &mut Registry,
    ) -> Self {
        let plan = install.plan.clone().map(Arc::new);
        let keeper =
            plan.clone().map(|plan| Keeper::new(plan, readiness, InstallMetrics::register(registry)));
        Self { plan, keeper, keeping: None, owner, node: node.to_owned() }
    }

    /// Installs, and keeps it so. Must be called within a runtime.
    pub(crate) fn start(&mut self) {
        if let Some(keeper) = self.keeper.take() {
            self.keeping = Some(tokio::spawn(keeper.keep()));
        }
    }

    /// Leaves it to another agent, which has taken over.
    pub(crate) async fn leave(&mut self) {
        if let Some(keeping) = self.keeping.take() {
            keeping.abort();
            // What it is writing is brought to its end.
            let _ = keeping.await;
        }
    }

    /// The agent was told to end: removes the installation if no other agent will come. Says whether that is so.
    pub(crate) async fn end(&mut self) -> bool {
        let Some(plan) = self.plan.clone() else { return false };
        let verdict = match &self.owner {
            None => Verdict::Unknown("nobody can be asked".to_owned()),
            Some(owner) => {
                let seen = tokio::time::timeout(LOOK, owner.look()).await;
                let seen = seen.unwrap_or_else(|_| Err("the Kubernetes API does not answer".to_owned()));
                wanted::verdict(seen.as_ref(), &self.node)
            }
        };
        match verdict {
            Verdict::Stays => {
                tracing::info!("the CNI plugin stays for the next agent");
                false
            }
            Verdict::Unknown(reason) => {
                tracing::warn!(
                    reason,
                    "the CNI plugin stays: it is not known that no other agent will come. To remove it: culvert uninstall"
                );
                false
            }
            Verdict::Ends(reason) => {
                self.leave().await;
                remove(plan, &reason).await;
                true
            }
        }
    }
}

async fn remove(plan: Arc<Plan>, reason: &str) {
    match tokio::task::spawn_blocking(move || plan.remove()).await {
        Ok(removal) => {
            let changed: Vec<_> = removal.changed.iter().map(|path| path.display().to_string()).collect();
            tracing::info!(reason, ?changed, "the CNI plugin is removed");
            removal
                .failures
                .iter()
                .for_each(|failure| tracing::warn!(failure, "not all of it could be removed"));
        }
        Err(error) => tracing::warn!(%error, "the removal of the CNI plugin ended early"),
    }
}
