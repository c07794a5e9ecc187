//! Connections that a pod opens: decide, dial, relay.
//!
//! Invariant: what the mesh knows leaves as the plan says or not at all; a refusal or a failed dial closes
//! the pod's connection with RST, so that the application learns of it at once.

pub(crate) mod attempts;

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Instant;

use futures_util::FutureExt;
use mesh::route::Unresolved;
use mesh::{Authority, Flow, HopKind, Identity, Route, Service, Workload};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::connections::{ConnectionInfo, Direction, Entry};
use crate::demand;
use crate::dns;
use crate::error::{ConnectionError, with_cause};
use crate::gate::{Link, Place};
use crate::hbone::client::{ConnectHead, PeerKey};
use crate::hbone::forwarded::Forwarded;
use crate::hbone::{ConnectError, Traceparent, baggage};
use crate::probe;
use crate::relay::{self, Far};
use crate::same_node::{self, Made, Wanted};
use crate::scope::{Captured, Scope};
use crate::telemetry::{Details, Party, Record, Reporter, ServiceName, Transport, begin, failed};
use crate::tls::revoked;

use self::attempts::{Attempts, Failed, Next, Tried};

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
    /// The names of which the peer behind the gateway must show one, where the next hop is that of another network.
    across: Option<Arc<[String]>>,
}

/// Why there is no hop to dial.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Unroutable {
    #[error(transparent)]
    Refused(#[from] mesh::Refusal),
    #[error("no healthy upstream: {0} has no address: {1}")]
    Unresolved(Arc<str>, String),
    #[error(transparent)]
    Unknown(#[from] demand::Unknown),
}

/// Why something was not reached as a connection of the pod would have reached it.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ReachError {
    #[error(transparent)]
    Unroutable(#[from] Unroutable),
    #[error(transparent)]
    Connect(#[from] ConnectError),
}

/// Connects to where a connection of the pod to `destination` would be carried, for what the agent asks on the pod's behalf.
pub(crate) async fn reach(
    scope: &Scope,
    source: SocketAddr,
    destination: SocketAddr,
) -> Result<(Far, Option<Link>), ReachError> {
    let own = scope.own_workload().await.map_err(Unroutable::from)?;
    let way = Way { source, original_destination: destination, arrived: Instant::now() };
    let hop = plan(scope, &own, way, &Tried::default()).await?;
    Ok(dial(scope, &own, source, &hop, Traceparent::random()).await?)
}

/// Serves one captured connection to its end. How it came about is forgotten before its bytes pass: what it holds while it lives is
/// held for each connection there is.
pub(crate) async fn serve(scope: Scope, captured: Captured) {
    if let Some(carried) = Box::pin(set_up(scope, captured)).await {
        carried.relay().await;
    }
}

/// Connects, or tells why not.
async fn set_up(scope: Scope, captured: Captured) -> Option<Carried> {
    let Captured { place, stream, source, original_destination } = captured;
    if probe::is_probe(original_destination) {
        probe::answer(stream).await;
        return None;
    }
    let way = Way { source, original_destination, arrived: Instant::now() };
    let planned = match scope.own_workload().await {
        Ok(own) => match plan(&scope, &own, way, &Tried::default()).await {
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
            relay::reset(stream);
            return None;
        }
    };
    connect(&scope, &own, hop, (stream, place), way).await
}

/// The two addresses the application sees, and when it asked.
#[derive(Clone, Copy)]
struct Way {
    source: SocketAddr,
    original_destination: SocketAddr,
    arrived: Instant,
}

/// A connection whose far end has accepted it.
struct Carried {
    // The pod is there for as long as a connection of its is.
    scope: Scope,
    near: TcpStream,
    far: Far,
    record: Box<Record>,
    // Held until it is over.
    _link: Option<Link>,
    _entry: Entry,
    _place: Place,
}

impl Carried {
    /// Moves its bytes until it ends, and tells how it did.
    async fn relay(self) {
        let Self { scope, near, far, record, _link, _entry, _place } = self;
        let session = match &far {
            Far::Stream(stream) => stream.session.clone(),
            Far::Tcp(_) => None,
        };
        let cut = revoked(session.clone()).map(|()| ConnectionError::Revoked);
        let result = relay::run(near, far, record.counters(), scope.shared.limits(), cut).await;
        record.finish(with_cause(result, session.as_deref()).as_ref().err());
    }
}

/// Tries one endpoint after the other. What is told of each attempt is what became of it, and of the last one what became of
/// the connection.
async fn connect(
    scope: &Scope,
    own: &Arc<Workload>,
    mut hop: Hop,
    (near, place): (TcpStream, Place),
    way: Way,
) -> Option<Carried> {
    let shared = &scope.shared;
    let spans = shared.config.spans.as_ref();
    let mut attempts = Attempts::new(&shared.config.timeouts);
    loop {
        // Nobody carries a trace into a pod's connection: it begins here, anew with each endpoint that is tried.
        let trace = begin(spans, None);
        let made = direct(scope, own, (way.source, trace), &hop).await;
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
        let entry = shared.connections.enter(info, None);
        let record = Record::open(&shared.metrics, details(own, way.source, &hop, transport));
        let record = Box::new(record.traced(spans, trace));
        match attempts.connect(scope, own, way, Next { hop: &hop, made, trace }, &near).await {
            Ok((far, link)) => {
                record.established(way.arrived);
                let scope = scope.clone();
                return Some(Carried { scope, near, far, record, _link: link, _entry: entry, _place: place });
            }
            Err(Failed { error, another }) => {
                record.finish(Some(&error));
                match another {
                    Some(another) => hop = another,
                    None => {
                        relay::reset(near);
                        return None;
                    }
                }
            }
        }
    }
}

/// Where a connection goes, after some have been `tried` in vain.
async fn plan(scope: &Scope, own: &Workload, way: Way, tried: &Tried) -> Result<Hop, Unroutable> {
    let flow = Flow {
        source: own,
        source_address: way.source.ip(),
        destination: way.original_destination,
        network: &scope.shared.config.network,
        pick: rand::random(),
        exclude: &tried.workloads,
    };
    demand::learn(&scope.shared, &flow).await?;
    let route = mesh::plan(&scope.shared.store.load(), &flow).map_err(Unroutable::from);
    let route = match route {
        Ok(Route::Resolve(unresolved)) => resolve(scope, &unresolved, flow.pick, &tried.addresses).await,
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
                tunnel: Some(Tunnelled { authority, accepted: accepted.into(), kind, across: None }),
            }),
            Route::DoubleTunnel {
                next_hop,
                authority,
                accepted,
                inner_accepted,
                gateway: _,
                workload,
                service,
                kind,
            } => Ok(Self {
                address: next_hop,
                workload: Some(workload),
                service: Some(service),
                tunnel: Some(Tunnelled {
                    authority,
                    accepted: accepted.into(),
                    kind,
                    across: Some(inner_accepted.into()),
                }),
            }),
            Route::Resolve(unresolved) => {
                Err(Unroutable::Unresolved(unresolved.hostname, "it resolved to a name again".into()))
            }
        }
    }
}

impl Hop {
    /// The identity that a tunnel to the workload proves. Behind a gateway the service's names alone count: of several,
    /// nobody says which one was shown.
    fn identity_of(&self, workload: &Workload) -> Option<Identity> {
        match self.tunnel.as_ref().and_then(|tunnel| tunnel.across.as_deref()) {
            Some([only]) => only.parse().ok(),
            Some(_) => None,
            None => Some(workload.identity()),
        }
    }
}

/// Finds the address of a destination that has only a name: one that was not tried, if there is one.
async fn resolve(
    scope: &Scope,
    unresolved: &Unresolved,
    pick: u64,
    tried: &[SocketAddr],
) -> Result<Route, Unroutable> {
    let fault = |reason: String| Unroutable::Unresolved(Arc::clone(&unresolved.hostname), reason);
    let limit = scope.shared.config.timeouts.resolve;
    let addresses = timeout(limit, Box::pin(dns::addresses_of(scope, &unresolved.hostname)))
        .await
        .map_err(|_| fault("the resolver took too long".into()))?
        .map_err(|error| fault(error.to_string()))?;
    let was_tried = |address: &IpAddr| tried.iter().any(|tried| tried.ip() == *address);
    let fresh: Vec<_> = addresses.iter().copied().filter(|address| !was_tried(address)).collect();
    let addresses = if fresh.is_empty() { &*addresses } else { &fresh };
    let chosen = unresolved.choose(addresses, pick).ok_or_else(|| fault("the answer is empty".into()))?;
    Ok(unresolved.at(chosen)?)
}

/// A connection without a tunnel to a workload that is a pod of this agent too, if that is wanted and comes about.
async fn direct(
    scope: &Scope,
    own: &Workload,
    (source, traceparent): (SocketAddr, Traceparent),
    hop: &Hop,
) -> Option<Made> {
    let (tunnel, workload) = (hop.tunnel.as_ref()?, hop.workload.as_deref()?);
    if tunnel.kind != HopKind::Workload || tunnel.across.is_some() {
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
        traceparent,
    };
    Box::pin(same_node::make(scope, &wanted)).await
}

/// Dials; the link is that of a socket of this connection's own.
async fn dial(
    scope: &Scope,
    own: &Workload,
    source: SocketAddr,
    hop: &Hop,
    traceparent: Traceparent,
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
        traceparent,
        network: tunnel.across.is_some().then(|| Arc::clone(&scope.shared.config.network)),
    };
    let (stream, _) = match &tunnel.across {
        Some(accepted) => Box::pin(scope.pool.open_across(&key, accepted, served, &head)).await?,
        None => scope.pool.open(&key, served, &head).await?,
    };
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
        destination: hop.workload.as_ref().map(|workload| Party::of(workload, hop.identity_of(workload))),
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
