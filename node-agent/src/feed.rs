//! What the agent is fed by: a mesh file, or a control plane, or a control plane beside a file that names the pods to enrol.
//!
//! Invariant: one source alone says what the mesh is. Until a control plane has said it, the agent is not ready; when it goes
//! away later, what it has said stays in force.

mod source;

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use control::ca::LocalCa;
use control::certificates::Authority;
use control::file::{Enrollment, FileSource, OpenedFile};
use control::istio_ca::IstioCa;
use control::xds;
use mesh::Store;
use mesh::route::Key;
use prometheus_client::registry::Registry;
use tokio::sync::watch;
use tunnel::Demand;

use crate::certificates::Certificates;
use crate::config::Config;
use crate::metrics;
use crate::readiness::Readiness;

pub(crate) use source::Source;

/// The sources that are followed, and what they fill.
pub(crate) struct Feed {
    /// The mesh.
    pub(crate) store: Arc<Store>,
    /// Certificates of its workloads.
    pub(crate) certificates: Arc<Certificates>,
    /// Who brings what the store lacks, if it is not to have all.
    pub(crate) demand: Option<Arc<dyn Demand>>,
    /// The pods to enrol besides those that the CNI plugin brings.
    pub(crate) pods: watch::Receiver<Vec<Enrollment>>,
    _pods: watch::Sender<Vec<Enrollment>>,
    _file: Option<FileSource>,
    client: Option<Arc<xds::Client>>,
    source: Source,
}

impl Feed {
    /// Begins to follow what the configuration names. Must be called within the control runtime.
    ///
    /// # Errors
    /// When a file is not good, or the local authority cannot be used. A control plane that cannot be reached is no error.
    pub(crate) fn start(
        config: &Config,
        readiness: &Readiness,
        registry: &mut Registry,
    ) -> anyhow::Result<Self> {
        let plane = &config.control_plane;
        let store = Arc::new(Store::new());
        // Read once, for a large mesh takes a while.
        let opened = config.mesh.as_ref().map(OpenedFile::open).transpose()?;
        let certificates = certificates(config, opened.as_ref(), registry)?;
        let (sender, pods) = watch::channel(Vec::new());
        let file = match opened {
            Some(opened) => {
                let whole = plane.xds.is_none().then(|| Arc::clone(&store));
                let source = opened.follow(whole, sender.clone())?;
                metrics::register_file(registry, Arc::clone(source.counters()));
                Some(source)
            }
            None => None,
        };
        let client = plane.xds.clone().map(|discovery| {
            let client = xds::Client::start(discovery, Arc::clone(&store), registry);
            tokio::spawn(report(client.synced(), readiness.clone()));
            Arc::new(client)
        });
        let source = match (&client, &file) {
            (Some(client), _) => Source::ControlPlane(Arc::clone(client)),
            (None, Some(file)) => Source::File {
                path: config.mesh.clone().unwrap_or_default(),
                counters: Arc::clone(file.counters()),
            },
            (None, None) => anyhow::bail!("nobody says what the mesh is: set XDS_ADDRESS or LOCAL_XDS_PATH"),
        };
        let is_partial = plane.xds.as_ref().is_some_and(|discovery| discovery.on_demand);
        let demand = client.as_ref().filter(|_| is_partial);
        let demand = demand.map(|client| Arc::new(OnDemand(Arc::clone(client))) as Arc<dyn Demand>);
        Ok(Self { store, certificates, demand, pods, _pods: sender, _file: file, client, source })
    }
}

impl Feed {
    /// What says what the mesh is.
    pub(crate) fn source(&self) -> Source {
        self.source.clone()
    }

    /// Waits until a control plane has said what the mesh is; a file has done so already.
    ///
    /// # Errors
    /// When it does not within `limit`.
    pub(crate) async fn told(&self, limit: Duration) -> anyhow::Result<()> {
        let Some(client) = &self.client else { return Ok(()) };
        let mut synced = client.synced();
        let told = synced.wait_for(|synced| synced.is_complete());
        let told = tokio::time::timeout(limit, told).await;
        told.with_context(|| format!("the control plane did not say within {limit:?} what the mesh is"))?
            .context("the control plane is no longer followed")?;
        Ok(())
    }
}

/// The authority at the configured address, or the local one that the mesh file names.
fn certificates(
    config: &Config,
    file: Option<&OpenedFile>,
    registry: &mut Registry,
) -> anyhow::Result<Arc<Certificates>> {
    let plane = &config.control_plane;
    let (authority, ttl): (Arc<dyn Authority>, _) = match (&plane.ca, file) {
        (Some(endpoint), file) => {
            if let Some(file) = file.filter(|file| file.mesh().ca.is_some()) {
                let path = file.path().display();
                tracing::warn!(%path, "CA_ADDRESS is set and its authority signs; `ca` of the mesh file is not used");
            }
            (Arc::new(IstioCa::new(endpoint.clone())), plane.certificate_ttl)
        }
        (None, Some(file)) => local(file)?,
        (None, None) => {
            anyhow::bail!("nobody signs certificates: set CA_ADDRESS, or LOCAL_XDS_PATH to a file with `ca:`")
        }
    };
    Ok(Arc::new(Certificates::new(authority, ttl, registry)))
}

fn local(file: &OpenedFile) -> anyhow::Result<(Arc<dyn Authority>, Duration)> {
    let parsed = file.mesh();
    let ca = parsed.ca.as_ref().with_context(|| {
        format!(
            "{} names no certificate authority; add `ca: {{dir: /var/lib/culvert/ca}}` to it",
            file.path().display()
        )
    })?;
    let authority = LocalCa::open_or_create(&ca.dir, &parsed.trust_domain)?;
    Ok((Arc::new(authority), ca.ttl))
}

/// Holds readiness back until every type has come once.
async fn report(mut synced: watch::Receiver<xds::Synced>, readiness: Readiness) {
    let mut pending: Vec<_> =
        synced.borrow().pending().map(|kind| (kind, readiness.wait_for(task(kind)))).collect();
    while !pending.is_empty() && synced.changed().await.is_ok() {
        let now = *synced.borrow_and_update();
        pending.retain(|(kind, _)| now.pending().any(|other| other == *kind));
    }
}

fn task(kind: xds::Kind) -> &'static str {
    match kind {
        xds::Kind::Address => "workloads and services of the control plane",
        xds::Kind::Authorization => "policies of the control plane",
    }
}

/// Asks the control plane for single things.
struct OnDemand(Arc<xds::Client>);

impl fmt::Debug for OnDemand {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("OnDemand")
    }
}

impl Demand for OnDemand {
    fn find<'a>(&'a self, key: &'a Key) -> Pin<Box<dyn Future<Output = bool> + Send + 'a>> {
        Box::pin(self.0.demand(key))
    }
}
