//! Who is to be in the mesh: the mesh file and Kubernetes together; and the list of it that is kept for a plugin that finds no agent.
//!
//! Invariant: the list is replaced only by one that is known to be true. As long as Kubernetes has said nothing, the list of the agent before
//! this one stays.

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;

use cni::ambient::{AmbientList, Selectors};
use control::file::Enrollment;
use prometheus_client::registry::Registry;
use tokio::sync::watch;

use crate::config::Config;
use crate::enrollment::Wishes;
use crate::kubernetes::{Annotator, Kubernetes, View};
use crate::readiness::Readiness;

/// Name of the list in the run directory.
const LIST: &str = "ambient.json";

/// Whoever says who is in the mesh.
pub(crate) struct Membership {
    file: watch::Receiver<Vec<Enrollment>>,
    kubernetes: Option<Kubernetes>,
    selectors: Selectors,
    list: PathBuf,
}

impl Membership {
    /// Begins to ask Kubernetes, if it is to be asked. Must be called within the control runtime.
    ///
    /// # Errors
    /// When it is not known how to ask it.
    pub(crate) async fn start(
        config: &Config,
        file: watch::Receiver<Vec<Enrollment>>,
        readiness: &Readiness,
        registry: &mut Registry,
    ) -> anyhow::Result<Self> {
        let kubernetes = match &config.kubernetes {
            Some(settings) => {
                Some(Kubernetes::start(settings, &config.membership, readiness, registry).await?)
            }
            None => None,
        };
        let list = config.process.place.run_dir.join(LIST);
        Ok(Self { file, kubernetes, selectors: config.membership.selectors.clone(), list })
    }

    /// What is wished.
    pub(crate) fn wishes(&self) -> Wishes {
        Wishes::new(self.file.clone(), self.view())
    }

    /// Who tells Kubernetes what came of it.
    pub(crate) fn annotator(&self) -> Option<Arc<Annotator>> {
        self.kubernetes.as_ref().map(|kubernetes| Arc::clone(&kubernetes.annotator))
    }

    /// Keeps the list until the process ends.
    pub(crate) async fn keep_list(self) -> std::io::Result<()> {
        let (mut wishes, mut known) = (self.wishes(), None);
        loop {
            if let Some(list) = self.list_now().filter(|list| known.as_ref() != Some(list)) {
                let (written, path) = (list.clone(), self.list.clone());
                match tokio::task::spawn_blocking(move || written.write(&path)).await? {
                    Ok(()) => known = Some(list),
                    Err(error) => tracing::warn!(
                        %error,
                        "without this list, or with an old one, a pod that is not in the mesh may be held back while no agent runs"
                    ),
                }
            }
            if !wishes.changed().await {
                return Ok(());
            }
        }
    }

    fn view(&self) -> Option<watch::Receiver<Arc<View>>> {
        self.kubernetes.as_ref().map(|kubernetes| kubernetes.view.clone())
    }

    /// The list as it should be; none as long as that is not known.
    fn list_now(&self) -> Option<AmbientList> {
        let named = |entry: &Enrollment| format!("{}/{}", entry.namespace, entry.name);
        let pods: BTreeSet<String> = self.file.borrow().iter().map(named).collect();
        let Some(view) = self.view() else {
            return Some(AmbientList::new(BTreeSet::new(), pods, true, self.selectors.clone()));
        };
        let view = Arc::clone(&view.borrow());
        view.is_complete
            .then(|| AmbientList::new((*view.namespaces).clone(), pods, false, self.selectors.clone()))
    }
}
