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
mod owner;
mod plan;
mod removal;
mod server;
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

use self::keeper::Keeper;
use self::metrics::InstallMetrics;
use self::owner::InCluster;
use self::wanted::{Owner, Verdict};
use crate::config::Config;
use crate::readiness::Readiness;

/// How long the Kubernetes API is asked at the end whether another agent is to come.
const LOOK: Duration = Duration::from_secs(10);

/// The installation of a running agent, which may be none at all.
pub(crate) struct Installation {
    plan: Option<Arc<Plan>>,
    keeper: Option<Keeper>,
    keeping: Option<JoinHandle<()>>,
    owner: Option<Arc<dyn Owner>>,
    node: String,
}

impl Installation {
    /// What the agent is to keep installed. Nothing is done yet, but the agent is not ready until all is there. Must be called within a
    /// runtime.
    pub(crate) fn prepare(config: &Config, readiness: &Readiness, registry: &mut Registry) -> Self {
        let install = &config.install;
        let plan = install.plan.clone().map(Arc::new);
        let keeper =
            plan.clone().map(|plan| Keeper::new(plan, readiness, InstallMetrics::register(registry)));
        let owner = config.kubernetes.clone().zip(install.daemon_set.clone());
        let owner = owner.map(|(kubernetes, set)| {
            let owner = Arc::new(InCluster::new(kubernetes, set));
            tokio::spawn(Arc::clone(&owner).follow());
            owner as Arc<dyn Owner>
        });
        Self { plan, keeper, keeping: None, owner, node: config.node.name.clone() }
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

    /// Whether no other agent will come to this node after this one, which was told to end. Where that is not known for sure, it is not so.
    pub(crate) async fn is_to_go(&self) -> bool {
        if self.plan.is_none() && self.owner.is_none() {
            return false;
        }
        let verdict = match &self.owner {
            None => Verdict::Unknown("nobody can be asked".to_owned()),
            Some(owner) => {
                let seen = tokio::time::timeout(LOOK, owner.look()).await;
                let seen = seen.unwrap_or_else(|_| Err("the Kubernetes API does not answer".to_owned()));
                wanted::verdict(seen.as_ref(), &self.node)
            }
        };
        match verdict {
            Verdict::Stays => tracing::info!("the CNI plugin stays for the next agent"),
            Verdict::Unknown(reason) => tracing::warn!(
                reason,
                "the CNI plugin stays: it is not known that no other agent will come. To remove it: culvert uninstall"
            ),
            Verdict::Ends(reason) => {
                tracing::info!(reason, "no other agent will come to this node, so all of it is removed");
                return true;
            }
        }
        false
    }

    /// Takes the installation off the node.
    pub(crate) async fn remove(&mut self) {
        self.leave().await;
        if let Some(plan) = self.plan.clone() {
            remove(plan).await;
        }
    }
}

async fn remove(plan: Arc<Plan>) {
    match tokio::task::spawn_blocking(move || plan.remove()).await {
        Ok(removal) => {
            let changed: Vec<_> = removal.changed.iter().map(|path| path.display().to_string()).collect();
            tracing::info!(?changed, "the CNI plugin is removed");
            removal
                .failures
                .iter()
                .for_each(|failure| tracing::warn!(failure, "not all of it could be removed"));
        }
        Err(error) => tracing::warn!(%error, "the removal of the CNI plugin ended early"),
    }
}
