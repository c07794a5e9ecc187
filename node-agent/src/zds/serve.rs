//! `culvert run` under an istio-cni: makes the rooms that are needed then, joins them, and waits for the end.

use std::sync::Arc;

use control::certificates::State;
use mesh::Identity;
use tunnel::{ConnectionInfo, Tunnel};

use super::pods::Means;
use super::{Pods, follow};
use crate::admin::Node;
use crate::certificates::Certificates;
use crate::config::{ByOthers, Config};
use crate::ending::{until_told, wind_down};
use crate::enrollment::{PodKey, PodState};
use crate::foundation::Foundation;
use crate::settling::settle_later;
use crate::{logging, spans};

/// Runs until the process is told to end. Pods keep their capture then, which is not ours: until another agent listens in them
/// their connections are refused by the kernel.
pub(crate) async fn serve(
    config: &Config,
    by_others: &ByOthers,
    logging: &logging::Logging,
) -> anyhow::Result<()> {
    let Config { process, capture, .. } = config;
    let mut foundation = Foundation::lay(config, logging, |_| None).await?;
    let pods_pending = foundation.readiness.wait_for("pods of istio-cni");
    let feed = foundation.feed()?;
    foundation.serve_readiness();
    let named = feed.pods.borrow().len();
    if named > 0 {
        tracing::warn!(
            named,
            "`enroll` of the mesh file is not used: istio-cni says which pods are captured"
        );
    }
    let tunnel = foundation.tunnel(&feed)?;
    let (tunnel_of_pods, store) = (Arc::clone(&tunnel), Arc::clone(&feed.store));
    let means = Means { tunnel: tunnel_of_pods, store, mark: by_others.mark, dns: capture.dns };
    let pods = Arc::new(Pods::new(means, &mut foundation.registry));
    let shown = Shown {
        pods: Arc::clone(&pods),
        tunnel: Arc::clone(&tunnel),
        certificates: Arc::clone(&feed.certificates),
    };
    foundation.show(&feed, Arc::new(shown))?;
    follow(by_others.socket.clone(), pods, pods_pending)?;
    tracing::info!(
        node = config.node.name,
        version = env!("CARGO_PKG_VERSION"),
        "agent started; istio-cni captures"
    );
    settle_later();
    until_told(&foundation.quit).await?;
    let outcome = wind_down(&tunnel, process.termination_deadline, &foundation.quit).await;
    spans::flush(foundation.spans.take()).await;
    outcome?;
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

    fn overdue_renewals(&self) -> usize {
        self.certificates.overdue()
    }
}
