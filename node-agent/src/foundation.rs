//! What every agent stands on, whoever captures its pods: its ports, its readiness and metrics, its TLS, and the tunnel; and what it shows on
//! those ports.
//!
//! Laid before anything of a node is touched, so that a port that is taken or a configuration that cannot be used is found by then. What
//! serves is in `background`, and ends with it.

use std::io;
use std::os::fd::{AsFd as _, OwnedFd};
use std::sync::Arc;

use anyhow::Context as _;
use control::crl::CrlFile;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::Notify;
use tokio::task::JoinSet;
use tunnel::{TlsOptions, Tunnel};

use crate::admin::{self, Admin, Answers, Node};
use crate::config::Config;
use crate::events::Events;
use crate::feed::Feed;
use crate::handover::{ADMIN_PORTS, METRICS, Named, READINESS};
use crate::logging::{Levels, Logging};
use crate::readiness::Readiness;
use crate::spans::Exporter;
use crate::{metrics, tls};

/// The foundation of a running agent.
pub(crate) struct Foundation<'a> {
    /// What must be done before the agent is ready.
    pub(crate) readiness: Readiness,
    /// Metrics, until they are served.
    pub(crate) registry: Registry,
    /// Notified by who asks for the end.
    pub(crate) quit: Arc<Notify>,
    /// Who answers the command line, once somebody can.
    pub(crate) answers: Answers,
    /// What ends when another agent has taken over.
    pub(crate) background: JoinSet<io::Result<()>>,
    /// What exports spans, if anything does; it is flushed at the end.
    pub(crate) spans: Option<Arc<Exporter>>,
    config: &'a Config,
    levels: Levels,
    events: Events,
    ports: Ports,
    tls: TlsOptions,
    revoked: Option<CrlFile>,
}

/// The ports, until they are served.
struct Ports {
    metrics: Option<TcpListener>,
    readiness: Option<TcpListener>,
    admin: Vec<(&'static str, TcpListener)>,
}

impl<'a> Foundation<'a> {
    /// Binds the ports, or takes those that `inherited` has by their names, and reads what TLS needs.
    pub(crate) async fn lay(
        config: &'a Config,
        logging: &Logging,
        inherited: impl FnMut(&str) -> Option<OwnedFd>,
    ) -> anyhow::Result<Self> {
        match linux::limits::raise_descriptors() {
            Ok(limit) => tracing::info!(limit, "descriptors that the agent may hold"),
            Err(error) => tracing::warn!(%error, "the limit of descriptors stays as it is"),
        }
        let ports = Ports::bind(config, inherited).await?;
        let mut registry = Registry::default();
        metrics::register_process(&mut registry, logging.dropped.clone());
        let (tls, revoked) = tls::prepare(&config.tls, &mut registry)?;
        Ok(Self {
            readiness: Readiness::default(),
            registry,
            quit: Arc::new(Notify::new()),
            answers: Answers::default(),
            background: JoinSet::new(),
            spans: None,
            config,
            levels: logging.levels.clone(),
            events: logging.events.clone(),
            ports,
            tls,
            revoked,
        })
    }

    /// The ports once more, for whoever takes them over.
    pub(crate) fn share_ports(&self) -> io::Result<Vec<Named>> {
        let Ports { metrics, readiness, admin } = &self.ports;
        let named = metrics.iter().map(|port| (METRICS, port));
        let named = named.chain(readiness.iter().map(|port| (READINESS, port)));
        let named = named.chain(admin.iter().map(|(name, port)| (*name, port)));
        named.map(|(name, port)| Ok((name.to_owned(), port.as_fd().try_clone_to_owned()?))).collect()
    }

    /// Begins to follow the mesh.
    pub(crate) fn feed(&mut self) -> anyhow::Result<Feed> {
        Feed::start(self.config, &self.readiness, &mut self.registry)
    }

    /// Answers whether the agent is ready, from now on.
    pub(crate) fn serve_readiness(&mut self) {
        if let Some(port) = self.ports.readiness.take() {
            self.background.spawn(admin::serve_readiness(port, self.readiness.clone()));
        }
    }

    /// Makes the tunnel. To be called once.
    pub(crate) fn tunnel(&mut self, feed: &Feed) -> anyhow::Result<Arc<Tunnel>> {
        self.spans = self.config.spans.as_ref().map(|settings| Exporter::start(settings, &mut self.registry));
        let spans = self.spans.clone().map(|exporter| exporter as Arc<dyn tunnel::Spans>);
        let data_path = tunnel::Config { tls: self.tls.clone(), spans, ..self.config.data_path.clone() };
        let (store, certificates) = (Arc::clone(&feed.store), Arc::clone(&feed.certificates));
        let tunnel = Tunnel::new(data_path, store, certificates, feed.demand.clone(), &mut self.registry)?;
        let tunnel = Arc::new(tunnel);
        let runtimes = tunnel.runtimes().into_iter().chain([tokio::runtime::Handle::current()]);
        metrics::register_runtimes(&mut self.registry, &runtimes.collect::<Vec<_>>());
        if let Some(file) = self.revoked.take() {
            tokio::spawn(tls::follow(file, Arc::downgrade(&tunnel)));
        }
        Ok(tunnel)
    }

    /// Shows the metrics that are registered by now, and what the node says of itself. They are returned, for whoever shows them otherwise.
    pub(crate) fn show(&mut self, feed: &Feed, node: Arc<dyn Node>) -> anyhow::Result<Arc<Registry>> {
        let registry = Arc::new(std::mem::take(&mut self.registry));
        if let Some(port) = self.ports.metrics.take() {
            self.background.spawn(admin::serve_metrics(port, Arc::clone(&registry)));
        }
        let admin = Admin {
            store: Arc::clone(&feed.store),
            mesh_is_given: self.config.control_plane.xds.is_none(),
            node,
            config: serde_json::to_value(&self.config.effective).context("the configuration")?,
            levels: self.levels.clone(),
            events: self.events.clone(),
            registry: Arc::clone(&registry),
            readiness: self.readiness.clone(),
            quit: Arc::clone(&self.quit),
            answers: Arc::clone(&self.answers),
        };
        let ports = std::mem::take(&mut self.ports.admin).into_iter().map(|(_, port)| port).collect();
        self.background.spawn(admin::serve(ports, admin));
        Ok(registry)
    }
}

impl Ports {
    async fn bind(
        config: &Config,
        mut inherited: impl FnMut(&str) -> Option<OwnedFd>,
    ) -> anyhow::Result<Self> {
        let process = &config.process;
        let metrics = admin::bind("metrics", process.metrics_address, inherited(METRICS)).await?;
        let readiness = admin::bind("readiness", process.readiness_address, inherited(READINESS)).await?;
        let admin = admin::bind_admin(process.admin_address, ADMIN_PORTS, inherited).await?;
        Ok(Self { metrics: Some(metrics), readiness: Some(readiness), admin })
    }
}
