//! Connections that a pod opens: decide, dial, relay.
//!
//! Invariant: what the mesh knows leaves as the plan says or not at all; a refusal or a failed dial closes
//! the pod's connection with RST, so that the application learns of it at once.

use std::future::pending;
use std::net::SocketAddr;
use std::sync::Arc;

use mesh::route::Unresolved;
use mesh::{Authority, Flow, HopKind, Route, Service, Workload};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::connections::{ConnectionInfo, Direction};
use crate::error::ConnectionError;
use crate::gate::Link;
use crate::hbone::client::{ConnectHead, PeerKey};
use crate::hbone::forwarded::Forwarded;
use crate::hbone::{ConnectError, Traceparent, baggage};
use crate::probe;
use crate::relay::{self, Far};
use crate::same_node::{self, Made, Wanted};
use crate::scope::{Captured, Scope};
use crate::telemetry::{Details, Party, Record, Reporter, ServiceName, Transport, failed};

/// Endpoints of a service that are tried for one connection.
const ATTEMPTS: usize = 3;
/// How often an endpoint is drawn in the hope of one that was not tried.
const DRAWS: usize = 24;

/// Where a connection goes, as far as this build can take it.
struct Hop {
    /// What is dialled.
    address: SocketAddr,
    workload: Option<Arc<Workload>>,
    service: Option<Arc<Service>>,
    tunnel: Option<Tunnelled>,
}

struct Tunnelled {
    authority: Authority,
    accepted: Arc<[String]>,
    kind: HopKind,
}

/// Why there is no hop to dial.
#[derive(Debug, thiserror::Error)]
enum Unroutable {
    #[error(transparent)]
    Refused(#[from] mesh::Refusal),
    #[error("no healthy upstream: {0} has no address: {1}")]
    Unresolved(Arc<str>, String),
    #[error("the destination is on another network, by way of gateway {0}, which is not supported")]
    OtherNetwork(SocketAddr),
}

/// Serves one captured connection to its end.
pub(crate) async fn serve(scope: Scope, captured: Captured) {
    let Captured { place: _place, stream, source, original_destination } = captured;
    if probe::is_probe(original_destination) {
        return probe::answer(stream).await;
    }
    let planned = match scope.own_workload().await {
        Ok(own) => match plan(&scope, &own, source, original_destination).await {
            Ok(hop) => Ok((own, hop)),
            Err(reason) => Err((Some(own), reason)),
        },
        Err(refusal) => Err((None, refusal.into())),
    };
    let (own, hop) = match planned {
        Ok(planned) => planned,
        Err((own, reason)) => {
            failed(Reporter::Source, source, original_destination, &reason);
            count_refusal(&scope, own.as_deref(), source, original_destination);
            return relay::reset(stream);
        }
    };
    carry(&scope, &own, hop, stream, Way { source, original_destination }).await;
}

/// The two addresses the application sees.
#[derive(Clone, Copy)]
struct Way {
    source: SocketAddr,
    original_destination: SocketAddr,
}

/// Dials and relays. An endpoint of a service that cannot be reached is replaced by another one: the
/// application has got nothing through yet. Each attempt is logged and counted as what it was.
async fn carry(scope: &Scope, own: &Arc<Workload>, mut hop: Hop, stream: TcpStream, way: Way) {
    let mut tried = Vec::new();
    loop {
        let made = direct(scope, own, way.source, &hop).await;
        let transport = match (&made, &hop.tunnel) {
            (Some(_), _) => Transport::Direct,
            (None, Some(_)) => Transport::MutualTls,
            (None, None) => Transport::Plain,
        };
        let info = ConnectionInfo {
            workload: Arc::clone(&own.uid),
            direction: Direction::Outbound,
            source: way.source,
            original_destination: Some(way.original_destination),
            destination: hop.address,
            hbone: transport == Transport::MutualTls,
            identity: None,
        };
        let _entry = scope.shared.connections.enter(info, None);
        let record = Record::open(&scope.shared.metrics, details(own, way.source, &hop, transport));
        let dialled = match made {
            Some(made) => {
                let answered = made.answered(scope.shared.config.timeouts.answer).await;
                answered.map(|(stream, link)| (Far::Tcp(stream), Some(link)))
            }
            None => dial(scope, own, way.source, &hop).await,
        };
        let error = match dialled {
            Ok((far, _link)) => {
                let never = pending::<ConnectionError>();
                let result = relay::run(stream, far, record.counters(), never).await;
                return record.finish(result.as_ref().err());
            }
            Err(error) => error,
        };
        tried.push(hop.address);
        let another = match hop.service {
            Some(_) if error.is_unreachable() => elsewhere(scope, own, way, &tried).await,
            _ => None,
        };
        record.finish(Some(&error.into()));
        match another {
            Some(another) => hop = another,
            None => return relay::reset(stream),
        }
    }
}

/// Another endpoint than those tried, if there is one to be drawn and patience is left.
async fn elsewhere(scope: &Scope, own: &Workload, way: Way, tried: &[SocketAddr]) -> Option<Hop> {
    if tried.len() >= ATTEMPTS {
        return None;
    }
    for _ in 0..DRAWS {
        let hop = plan(scope, own, way.source, way.original_destination).await.ok()?;
        if !tried.contains(&hop.address) {
            return Some(hop);
        }
    }
    None
}

async fn plan(
    scope: &Scope,
    own: &Workload,
    source: SocketAddr,
    destination: SocketAddr,
) -> Result<Hop, Unroutable> {
    let flow = Flow {
        source: own,
        source_address: source.ip(),
        destination,
        network: &scope.shared.config.network,
        pick: rand::random(),
    };
    let route = mesh::plan(&scope.shared.store.load(), &flow).map_err(Unroutable::from);
    let route = match route {
        Ok(Route::Resolve(unresolved)) => resolve(scope, &unresolved, flow.pick).await,
        other => other,
    };
    route.and_then(Hop::try_from)
}

impl TryFrom<Route> for Hop {
    type Error = Unroutable;

    fn try_from(route: Route) -> Result<Self, Unroutable> {
        match route {
            Route::Passthrough { destination } => {
                Ok(Self { address: destination, workload: None, service: None, tunnel: None })
            }
            Route::Direct { destination, workload, service } => {
                Ok(Self { address: destination, workload: Some(workload), service, tunnel: None })
            }
            Route::Tunnel { next_hop, authority, accepted, workload, service, kind } => Ok(Self {
                address: next_hop,
                workload: Some(workload),
                service,
                tunnel: Some(Tunnelled { authority, accepted: accepted.into(), kind }),
            }),
            Route::DoubleTunnel { next_hop, .. } => Err(Unroutable::OtherNetwork(next_hop)),
            Route::Resolve(unresolved) => {
                Err(Unroutable::Unresolved(unresolved.hostname, "it resolved to a name again".into()))
            }
        }
    }
}

/// Finds the address of a destination that has only a name, with the node's resolver.
async fn resolve(scope: &Scope, unresolved: &Unresolved, pick: u64) -> Result<Route, Unroutable> {
    let fault = |reason: String| Unroutable::Unresolved(Arc::clone(&unresolved.hostname), reason);
    let lookup = tokio::net::lookup_host((&*unresolved.hostname, unresolved.port));
    let addresses = timeout(scope.shared.config.timeouts.resolve, lookup)
        .await
        .map_err(|_| fault("the resolver took too long".into()))?
        .map_err(|error| fault(error.to_string()))?;
    let addresses: Vec<_> = addresses.map(|address| address.ip()).collect();
    let chosen = unresolved.choose(&addresses, pick).ok_or_else(|| fault("the answer is empty".into()))?;
    Ok(unresolved.at(chosen)?)
}

/// A connection without a tunnel to a workload that is a pod of this agent too, if that is wanted and comes about.
async fn direct(scope: &Scope, own: &Workload, source: SocketAddr, hop: &Hop) -> Option<Made> {
    let (tunnel, workload) = (hop.tunnel.as_ref()?, hop.workload.as_deref()?);
    if tunnel.kind != HopKind::Workload {
        return None;
    }
    let wanted = Wanted {
        own,
        source,
        next_hop: hop.address,
        workload,
        accepted: &tunnel.accepted,
        authority: &tunnel.authority,
        host: hop.service.as_ref().map(|service| service.hostname.to_string()),
    };
    Box::pin(same_node::make(scope, &wanted)).await
}

/// Dials; the link is that of a socket of this connection's own.
async fn dial(
    scope: &Scope,
    own: &Workload,
    source: SocketAddr,
    hop: &Hop,
) -> Result<(Far, Option<Link>), ConnectError> {
    let served = &scope.served;
    let Some(tunnel) = &hop.tunnel else {
        let (stream, link) = scope.shared.dialer().to_network(served, hop.address).await?;
        return Ok((Far::Tcp(stream), Some(link)));
    };
    let to_itself = own.addresses.contains(&hop.address.ip());
    let key = PeerKey {
        pod: served.number,
        source: own.identity(),
        accepted: Arc::clone(&tunnel.accepted),
        next_hop: served.pod.self_address.filter(|_| to_itself).unwrap_or(hop.address),
        source_address: source.ip(),
    };
    let head = ConnectHead {
        authority: tunnel.authority.clone(),
        baggage: baggage::of(own),
        forwarded: Forwarded {
            client: Some(source),
            host: hop.service.as_ref().map(|service| service.hostname.to_string()),
        },
        traceparent: Traceparent::random(),
    };
    let (stream, _) = scope.pool.open(&key, served, &head).await?;
    Ok((Far::Stream(stream), None))
}

fn details(own: &Workload, source: SocketAddr, hop: &Hop, transport: Transport) -> Details {
    let identified = transport != Transport::Plain;
    Details {
        reporter: Reporter::Source,
        source_address: source,
        source: Some(Party::of(own, identified.then(|| own.identity()))),
        destination_address: hop.address,
        hbone_address: hop.tunnel.as_ref().map(|tunnel| tunnel.authority.to_string()),
        destination: hop.workload.as_ref().map(|workload| Party::of(workload, Some(workload.identity()))),
        service: hop.service.as_deref().map(ServiceName::from),
        transport,
    }
}

/// Counts what was refused before anything was dialled; the log has told of it already.
fn count_refusal(scope: &Scope, own: Option<&Workload>, source: SocketAddr, destination: SocketAddr) {
    let details = Details {
        reporter: Reporter::Source,
        source_address: source,
        source: own.map(|own| Party::of(own, None)),
        destination_address: destination,
        hbone_address: None,
        destination: None,
        service: None,
        transport: Transport::Plain,
    };
    scope.shared.metrics.count_refused(&details);
}
