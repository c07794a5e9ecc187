//! Keeps the plugin installed: installs it, and again whenever something of it has changed.
//!
//! The directories are watched, and looked at from time to time besides. Invariant: the agent counts as ready only while the
//! plugin is where the runtime calls it; what is wrong is told once, and again when it is another thing.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use control::watched::Events;

use super::fight::Fight;
use super::metrics::InstallMetrics;
use super::plan::{InstallError, Plan, Report};
use crate::readiness::{Pending, Readiness};

/// What holds readiness back.
const TASK: &str = "installation of the CNI plugin";

/// Who keeps the plugin installed.
#[derive(Debug)]
pub(crate) struct Keeper {
    plan: Arc<Plan>,
    metrics: InstallMetrics,
    readiness: Readiness,
    pending: Option<Pending>,
    fight: Fight,
    last: Last,
}

/// What was told last.
#[derive(Debug, PartialEq, Eq)]
enum Last {
    Nothing,
    Installed { configuration: PathBuf, cautions: Vec<String> },
    Failed(String),
}

impl Keeper {
    /// A keeper of a plan; the agent is not ready until it is carried out.
    pub(crate) fn new(plan: Arc<Plan>, readiness: &Readiness, metrics: InstallMetrics) -> Self {
        Self {
            plan,
            metrics,
            readiness: readiness.clone(),
            pending: Some(readiness.wait_for(TASK)),
            fight: Fight::default(),
            last: Last::Nothing,
        }
    }

    /// Installs the plugin, and goes on doing so for ever.
    pub(crate) async fn keep(mut self) {
        // Watched before it is looked at, so that no change falls in between.
        let mut events = Events::in_each(&self.watched());
        loop {
            let plan = Arc::clone(&self.plan);
            match tokio::task::spawn_blocking(move || plan.install()).await {
                Ok(outcome) => self.note(outcome),
                Err(error) => tracing::warn!(%error, "the installation of the CNI plugin ended early"),
            }
            let wait = self.fight.wait(Instant::now());
            if !wait.is_zero() {
                // Not all agents of a cluster at once.
                tokio::time::sleep(wait.mul_f64(rand::random_range(0.8..1.2))).await;
            }
            events.next().await;
        }
    }

    fn watched(&self) -> Vec<PathBuf> {
        let plan = &self.plan;
        let source = plan.source.parent().map(PathBuf::from);
        let plugins = plan.plugins.clone().into_iter().chain(source.filter(|_| plan.plugins.is_some()));
        let account = plan.api.as_ref().map(|api| api.service_account.clone());
        std::iter::once(plan.directory.clone()).chain(plugins).chain(account).collect()
    }

    fn note(&mut self, outcome: Result<Report, InstallError>) {
        match outcome {
            Ok(report) => self.installed(report),
            Err(error) => self.failed(error.to_string()),
        }
    }

    fn installed(&mut self, report: Report) {
        let (configuration, others) = (report.configuration.display(), report.others.join(", "));
        let was_there = matches!(&self.last, Last::Installed { configuration, .. }
            if *configuration == report.configuration);
        if report.has_written_configuration() && was_there {
            self.metrics.repairs.inc();
            tracing::info!(%configuration, others, "the CNI plugin was put back: somebody had taken it out");
            if let Some(times) = self.fight.repaired(Instant::now()) {
                tracing::warn!(
                    %configuration, others, times,
                    "somebody takes the CNI plugin out of the network configuration again and again: pods that start meanwhile \
                     are not in the mesh. Let the cluster's network plugin leave what it did not write (Cilium: \
                     cni.exclusive=false), or give ours a configuration of its own (--own-cni-config)"
                );
            }
        }
        let now = Last::Installed { configuration: report.configuration, cautions: report.cautions };
        if let Last::Installed { configuration, cautions } = &now
            && self.last != now
        {
            let written = report.written.iter().map(|path| path.display().to_string()).collect::<Vec<_>>();
            tracing::info!(configuration = %configuration.display(), others, ?written, "the CNI plugin is installed");
            cautions.iter().for_each(|caution| tracing::warn!("{caution}"));
        }
        self.last = now;
        self.metrics.installed.set(1);
        self.pending = None;
    }

    fn failed(&mut self, error: String) {
        self.metrics.failures.inc();
        self.metrics.installed.set(0);
        if self.pending.is_none() {
            self.pending = Some(self.readiness.wait_for(TASK));
        }
        let now = Last::Failed(error);
        if let Last::Failed(error) = &now
            && self.last != now
        {
            tracing::warn!(error, "the CNI plugin is not installed, so no new pod comes into the mesh by it");
        }
        self.last = now;
    }
}
