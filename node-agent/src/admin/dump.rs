//! `/config_dump`: everything that the agent knows, as one JSON document that existing tools read.
//!
//! Invariant: the document is one moment's mesh, however long it takes to be read. It is never in memory as a whole: pieces
//! are made as fast as they are taken, and nothing waits for them.

mod certificates;
mod pods;
mod version;
mod writer;

use std::collections::BTreeMap;
use std::sync::Arc;

use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::IntoResponse;
use control::dump::{self, Form, PolicyView, ServiceView, WorkloadView};
use mesh::{Policy, Service, Snapshot, Workload};

pub(crate) use self::certificates::moment;
use self::writer::{Broken, Writer};
use super::{Admin, Shared};

/// Answers with the document.
pub(super) async fn answer(State(shared): State<Shared>) -> impl IntoResponse {
    let (writer, body) = writer::start();
    tokio::spawn(async move {
        if let Err(error) = write(&shared.admin, writer).await {
            tracing::debug!(%error, "a dump was not finished");
        }
    });
    ([(header::CONTENT_TYPE, "application/json")], Body::from_stream(body))
}

/// A snapshot's resources in the order of their names, so that two dumps can be compared.
struct Sorted {
    snapshot: Arc<Snapshot>,
    workloads: Vec<Arc<Workload>>,
    services: Vec<Arc<Service>>,
    policies: Vec<Arc<Policy>>,
}

impl Sorted {
    fn new(snapshot: Arc<Snapshot>) -> Self {
        let mut workloads: Vec<_> = snapshot.workloads().cloned().collect();
        workloads.sort_unstable_by(|one, other| one.uid.cmp(&other.uid));
        let mut services: Vec<_> = snapshot.services().cloned().collect();
        services.sort_unstable_by(|one, other| {
            (&one.namespace, &one.hostname).cmp(&(&other.namespace, &other.hostname))
        });
        let mut policies: Vec<_> = snapshot.policies().cloned().collect();
        policies
            .sort_unstable_by(|one, other| (&one.namespace, &one.name).cmp(&(&other.namespace, &other.name)));
        Self { snapshot, workloads, services, policies }
    }

    /// Writes workloads, services and policies as three members of an object.
    async fn write(&self, writer: &mut Writer, form: Form) -> Result<(), Broken> {
        writer.begin("policies");
        for policy in &self.policies {
            writer.value(&PolicyView::from(&**policy))?;
            writer.send().await?;
        }
        writer.end();
        writer.begin("services");
        for service in &self.services {
            writer.value(&ServiceView::new(&self.snapshot, service, form))?;
            writer.send().await?;
        }
        writer.end();
        writer.begin("workloads");
        for workload in &self.workloads {
            writer.value(&WorkloadView::new(workload, form))?;
            writer.send().await?;
        }
        writer.end();
        Ok(())
    }

    fn staged(&self) -> BTreeMap<String, BTreeMap<&str, dump::EndpointView<'_>>> {
        let staged = self.snapshot.staged();
        staged.map(|(key, _)| (key.to_string(), dump::endpoints(&self.snapshot, key, false))).collect()
    }
}

async fn write(admin: &Admin, mut writer: Writer) -> Result<(), Broken> {
    let snapshot = admin.store.load();
    // Sorting a hundred thousand takes a while, for which no other request should wait.
    let sorted = tokio::task::spawn_blocking(move || Sorted::new(snapshot)).await?;
    writer.open(None);
    writer.member("certificates", &certificates::views(&admin.node.certificates()))?;
    writer.member("config", &admin.config)?;
    sorted.write(&mut writer, Form::Joined).await?;
    writer.member("stagedServices", &sorted.staged())?;
    writer.open(Some("staticConfig"));
    let nothing = Sorted::new(Arc::default());
    let given = if admin.mesh_is_given { &sorted } else { &nothing };
    given.write(&mut writer, Form::Given).await?;
    writer.close();
    writer.member("version", &version::view())?;
    let pods = pods::views(&sorted.snapshot, admin.node.pods(), &admin.node.connections());
    writer.member("workloadState", &pods)?;
    writer.close();
    writer.finish().await
}
