//! One packet of a pod from its arrival to its answer, whatever way it came.

use std::net::SocketAddr;
use std::time::Instant;

use super::find::Asker;
use super::handler::{Action, handle};
use super::message::Transport;
use super::metrics::Labels;
use super::upstream;
use crate::scope::{Scope, own_workload};

/// Who sent a packet, how, and to whom.
#[derive(Clone, Copy, Debug)]
pub(super) struct Way {
    pub(super) client: SocketAddr,
    pub(super) resolver: SocketAddr,
    pub(super) transport: Transport,
}

/// The answer to a packet, if there is to be any.
pub(super) async fn answer(scope: &Scope, packet: &[u8], way: Way) -> Option<Vec<u8>> {
    let (shared, served) = (&scope.shared, &scope.served);
    let settings = served.settings.current(&served.pod.sockets).await;
    let snapshot = shared.store.load();
    let asker = Asker {
        snapshot: &snapshot,
        namespace: &served.pod.namespace,
        network: &shared.config.network,
        settings: &settings,
        cluster_domain: &shared.cluster_domain,
        ipv6: shared.config.dns.ipv6,
        seed: rand::random(),
    };
    let handled = handle(&asker, packet, way.transport);
    let labels = Labels::new(&handled.kind, way.transport, own_workload(&snapshot, &served.pod).as_deref());
    let metrics = &shared.metrics.dns;
    let forward = match handled.action {
        Action::Drop => return None,
        Action::Reply(reply) => {
            metrics.count(&labels);
            return Some(reply);
        }
        Action::Forward(forward) => forward,
    };
    drop(snapshot);
    metrics.count(&labels);
    let started = Instant::now();
    let asked = upstream::ask(scope, way.client, way.resolver, packet, way.transport).await;
    metrics.count_upstream(&labels, started.elapsed(), asked.is_err());
    match asked {
        Ok(reply) => Some(forward.pass_on(reply)),
        Err(error) => {
            let pod = &served.pod;
            tracing::debug!(?pod, client = %way.client, resolver = %way.resolver, %error, "DNS query failed");
            forward.failed(packet)
        }
    }
}
