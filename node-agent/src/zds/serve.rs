//! `culvert run` under an istio-cni: makes the rooms that are needed then, joins them, and waits for the end.

use std::path::PathBuf;
use std::sync::Arc;

use control::certificates::State;
use mesh::Identity;
use prometheus_client::registry::Registry;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tunnel::{ConnectionInfo, Tunnel};

use super::pods::Means;
use super::{Pods, follow};
use crate::admin::{self, Admin, Node};
use crate::certificates::Certificates;
use crate::config::{ByOthers, Config};
use crate::ending::{until_told, wind_down};
use crate::enrollment::{PodKey, PodState};
use crate::feed::Feed;
use crate::readiness::Readiness;
use crate::{logging, metrics, tls};

/// Runs until the process is told to end. Pods keep their capture then, which is not ours: until another agent listens in them
/// their connections are refused by the kernel.
pub(crate) async fn serve(
    config: &Config,
    by_others: &ByOthers,
    logging: &logging::Logging,
) -> anyhow::Result<()> {
    let Config { process, capture, .. } = config;
    match linux::limits::raise_descriptors() {
        Ok(limit) => tracing::info!(limit, "descriptors that the agent may hold"),
        Err(error) => tracing::warn!(%error, "the limit of descriptors stays as it is"),
    }
    let mut background = JoinSet::new();
    let metrics_port = admin::bind("metrics", process.metrics_address, None).await?;
    let readiness_port = admin::bind("readiness", process.readiness_address, None).await?;
    let admin_ports =
        admin::bind_admin(process.admin_address, crate::handover::ADMIN_PORTS, |_| None).await?;
    let readiness = Readiness::default();
    let pods_pending = readiness.wait_for("pods of istio-cni");
    let mut registry = Registry::default();
    metrics::register_process(&mut registry, logging.dropped.clone());
    let (tls, revoked) = tls::prepare(&config.tls, &mut registry)?;
    let feed = Feed::start(config, &readiness, &mut registry)?;
    background.spawn(admin::serve_readiness(readiness_port, readiness));
    let named = feed.pods.borrow().len();
    if named > 0 {
        tracing::warn!(
            named,
            "`enroll` of the mesh file is not used: istio-cni says which pods are captured"
        );
    }
    let data_path = tunnel::Config { tls, ..config.data_path.clone() };
    let (store, certificates) = (Arc::clone(&feed.store), Arc::clone(&feed.certificates));
    let tunnel = Tunnel::new(data_path, store, certificates, feed.demand.clone(), &mut registry)?;
    let tunnel = Arc::new(tunnel);
    let runtimes = tunnel.runtimes().into_iter().chain([tokio::runtime::Handle::current()]);
    metrics::register_runtimes(&mut registry, &runtimes.collect::<Vec<_>>());
    if let Some(file) = revoked {
        tokio::spawn(tls::follow(file, Arc::downgrade(&tunnel)));
    }
    let (tunnel_of_pods, store) = (Arc::clone(&tunnel), Arc::clone(&feed.store));
    let means = Means { tunnel: tunnel_of_pods, store, mark: by_others.mark, dns: capture.dns };
    let pods = Arc::new(Pods::new(means, &mut registry));
    background.spawn(admin::serve_metrics(metrics_port, Arc::new(registry)));
    let quit = Arc::new(Notify::new());
    let admin = Admin {
        store: Arc::clone(&feed.store),
        mesh_is_given: config.control_plane.xds.is_none(),
        node: Box::new(Shown {
            pods: Arc::clone(&pods),
            tunnel: Arc::clone(&tunnel),
            certificates: Arc::clone(&feed.certificates),
        }),
        config: serde_json::to_value(&config.effective)?,
        levels: logging.levels.clone(),
        quit: Arc::clone(&quit),
    };
    background.spawn(admin::serve(admin_ports.into_iter().map(|(_, port)| port).collect(), admin));
    let socket: PathBuf = by_others.socket.clone();
    follow(socket, pods, pods_pending)?;
    tracing::info!(
        node = config.node.name,
        version = env!("CARGO_PKG_VERSION"),
        "agent started; istio-cni captures"
    );
    until_told(&quit).await?;
    wind_down(&tunnel, process.termination_deadline, &quit).await?;
    tracing::info!("agent ends");
    Ok(())
}

/// What the admin interface shows.
struct Shown {
    pods: Arc<Pods>,
    tunnel: Arc<Tunnel>,
    certificates: Arc<Certificates>,
}

impl Node for Shown {
    fn pods(&self) -> Vec<(PodKey, PodState)> {
        self.pods.states()
    }

    fn connections(&self) -> Vec<ConnectionInfo> {
        self.tunnel.connections()
    }

    fn certificates(&self) -> Vec<(Identity, State)> {
        self.certificates.states()
    }
}
