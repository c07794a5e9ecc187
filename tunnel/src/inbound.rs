//! Tunnels that arrive at a pod: TLS, then for each CONNECT the destination check, policy, the application.
//!
//! Invariant: the application is reached only after the client has proven its identity and policy has
//! allowed it, and the client hears 200 only after the application has accepted. The address that policy
//! and the application see is that of the tunnel itself, never one that a header claims. By loopback comes only the pod
//! itself.

mod proxy_protocol;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use h2::Reason;
use http::StatusCode;
use mesh::inbound::InboundRefusal;
use mesh::workload::TunnelProtocol;
use mesh::{Authority, Identity, Snapshot, Workload};
use tokio::net::TcpStream;
use tokio::runtime::Handle;
use tokio::time::timeout;
use tokio_rustls::server::TlsStream;

use crate::connections::{ConnectionInfo, Direction, Entry};
use crate::error::{ConnectionError, with_cause};
use crate::gate::{Link, Place};
use crate::hbone::server::{self, Asked, ConnectRequest, ServeError};
use crate::hbone::{ConnectError, baggage};
use crate::judgement::{Judged, judge};
use crate::relay::{self, Far};
use crate::same_node::{self, DirectRequest};
use crate::scope::{Captured, Scope};
use crate::share::Share;
use crate::socket;
use crate::telemetry::{Details, Party, Record, Reporter, ServiceName, Transport, failed};
use crate::tls::{HandshakeError, ReadAhead, Session, revoked};
#[cfg(feature = "fuzzing")]
pub(crate) use proxy_protocol::header as proxy_header;

/// A tunnel, or a connection that the agent made itself, whose client is proven.
#[derive(Clone)]
pub(crate) struct Arrival {
    pub(crate) scope: Scope,
    /// The two ends of the connection that arrived.
    pub(crate) source: SocketAddr,
    pub(crate) connected: SocketAddr,
    pub(crate) client: Identity,
    pub(crate) transport: Transport,
    /// The session of a tunnel, if certificates can be revoked.
    pub(crate) session: Option<Arc<Session>>,
}

/// One client that waits for its answer.
pub(crate) enum Request {
    /// By a stream in a tunnel.
    Stream(ConnectRequest),
    /// By a connection of its own.
    Direct(DirectRequest),
}

/// Serves one tunnel until its client leaves it.
pub(crate) async fn serve(scope: Scope, captured: Captured) {
    let (source, connected) = (captured.source, captured.original_destination);
    if let Some(taken) = scope.served.offers.take(source, connected) {
        return Box::pin(same_node::serve(scope, captured, taken)).await;
    }
    let Some(_tunnel) = scope.served.gate.tunnel(source) else { return relay::reset(captured.stream) };
    let (client, tls, session, _place) = match handshake(&scope, captured).await {
        Ok(proven) => proven,
        Err(reason) => {
            scope.shared.metrics.reasons.tunnel_refused(reason.label());
            return failed(Reporter::Destination, source, connected, &reason);
        }
    };
    let shared = Arc::clone(&scope.shared);
    let serving = scope.served.serving.clone();
    let ended = revoked(session.clone());
    let arrival = Arrival { scope, source, connected, client, transport: Transport::MutualTls, session };
    let mut share = None;
    let origin = arrival.scope.served.crowds.source(source.ip(), Instant::now());
    let served = server::serve(tls, &shared.config.http2, &shared.config.timeouts, serving, |request| {
        origin.enter(Instant::now());
        let share = share.get_or_insert_with(|| Share::on(&Handle::current()));
        share.spawn(arrival.clone().connect(Request::Stream(request)));
    });
    let served = tokio::select! {
        served = served => served,
        // Its streams end by themselves, as soon.
        () = ended => return tracing::warn!(%source, "tunnel closed: the client's certificate was revoked"),
    };
    match served {
        Ok(()) => {}
        // Peers close their sockets without the goodbyes of TLS and HTTP/2: that is how tunnels end.
        Err(ServeError::Http2(error)) if error.is_io() => tracing::debug!(%source, %error, "tunnel closed"),
        Err(error) => tracing::info!(%source, %error, "tunnel closed"),
    }
}

/// Why a tunnel was not accepted.
#[derive(Debug, thiserror::Error)]
enum Unaccepted {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    UnknownSelf(#[from] mesh::Refusal),
    #[error("too many tls handshakes at once")]
    Busy,
    #[error("the client sent nothing within {0:?}")]
    Silent(Duration),
    #[error("client has identity {0}, and loopback is for the pod itself")]
    Loopback(Identity),
    #[error("io error: {0}")]
    Io(#[from] io::Error),
}

impl Unaccepted {
    fn label(&self) -> &'static str {
        match self {
            Self::Connect(ConnectError::Certificate(_)) => "certificate",
            Self::Connect(ConnectError::Tls(HandshakeError::Revoked)) => "revoked",
            Self::Connect(_) => "tls",
            Self::UnknownSelf(_) => "unknown_workload",
            Self::Busy => "busy",
            Self::Silent(_) => "silent",
            Self::Loopback(_) => "loopback",
            Self::Io(_) => "io",
        }
    }
}

impl From<HandshakeError> for Unaccepted {
    fn from(error: HandshakeError) -> Self {
        Self::Connect(error.into())
    }
}

async fn handshake(
    scope: &Scope,
    captured: Captured,
) -> Result<(Identity, TlsStream<ReadAhead<TcpStream>>, Option<Arc<Session>>, Place), Unaccepted> {
    let Captured { place, stream, original_destination, .. } = captured;
    let shared = &scope.shared;
    let limits = &shared.config.timeouts;
    socket::abort_on_drop(&stream, true);
    let own = scope.own_workload().await?.identity();
    // Who keeps silent takes nobody's turn.
    let silent = |_| Unaccepted::Silent(limits.first_bytes);
    timeout(limits.first_bytes, stream.readable()).await.map_err(silent)??;
    let turn = async {
        let of_pod = scope.served.handshakes.acquire().await.ok()?;
        Some((of_pod, shared.handshakes.acquire().await.ok()?))
    };
    let _turn = timeout(limits.tls_handshake, turn).await.ok().flatten().ok_or(Unaccepted::Busy)?;
    let server = scope.served.user.server(&own).await?;
    let accepting = server.acceptor().accept(ReadAhead::of(stream)).into_fallible();
    let accepted = timeout(limits.tls_handshake, accepting)
        .await
        .map_err(|_| HandshakeError::Timeout(limits.tls_handshake))?;
    let tls = accepted.map_err(|(error, stream)| {
        // The alert that says what is wrong is on its way.
        let stream = stream.into_inner();
        socket::abort_on_drop(&stream, false);
        tokio::spawn(socket::part(stream));
        HandshakeError::from(error)
    })?;
    let client = server.client_of(tls.get_ref().1)?;
    if original_destination.ip().is_loopback() && client != own {
        return Err(Unaccepted::Loopback(client));
    }
    socket::abort_on_drop(tls.get_ref().0.get_ref(), false);
    let session = server.session(tls.get_ref().1);
    Ok((client, tls, session, place))
}

/// A client whose connection the application has accepted.
struct Accepted {
    // The pod is there for as long as a connection of its is.
    scope: Scope,
    app: TcpStream,
    far: Far,
    record: Box<Record>,
    entry: Entry,
    session: Option<Arc<Session>>,
    // Held until it is over.
    _link: Link,
    _place: Option<Place>,
}

impl Accepted {
    /// Moves its bytes until it ends, and tells how it did. Should policy or a list of revoked certificates have changed
    /// meanwhile, it is cut before the first one.
    async fn relay(self) {
        let Self { scope, app, far, record, entry, session, _link, _place } = self;
        let cut = entry.cut_or_revoked(session.clone());
        let result = relay::run(app, far, record.counters(), scope.shared.limits(), cut).await;
        record.finish(with_cause(result, session.as_deref()).as_ref().err());
    }
}

impl Arrival {
    /// Serves one client to its end. How it came about is forgotten before its bytes pass: what it holds while it lives is held
    /// for each connection there is.
    pub(crate) async fn connect(self, request: Request) {
        if let Some(accepted) = Box::pin(self.set_up(request)).await {
            accepted.relay().await;
        }
    }

    /// Connects to the application, or tells why not.
    async fn set_up(mut self, mut request: Request) -> Option<Accepted> {
        let arrived = Instant::now();
        let own = async { Ok(self.scope.own_workload().await) };
        let own = match unless_gone(&mut request, own).await {
            Ok(Ok(own)) => own,
            Ok(Err(_)) => {
                request.refuse(StatusCode::SERVICE_UNAVAILABLE);
                return None;
            }
            Err(error) => {
                tracing::debug!(source = %self.source, %error, "stream ended early");
                return None;
            }
        };
        // The connection that arrived has a place already; what a stream makes of it takes another.
        let place = match &request {
            Request::Stream(_) => self.scope.served.gate.place(self.source).map(Some),
            Request::Direct(_) => Some(None),
        };
        let Some(place) = place else {
            request.refuse(StatusCode::SERVICE_UNAVAILABLE);
            return None;
        };
        self.come_home(&own, &request.asked().authority);
        let shared = &self.scope.shared;
        let snapshot = shared.store.load();
        let authority = &request.asked().authority;
        let destination = mesh::inbound::destination(&snapshot, &own, self.connected, authority);
        let destination = match destination {
            Ok(destination) => destination,
            Err(refusal) => {
                shared.metrics.reasons.request_refused(&refusal);
                failed(Reporter::Destination, self.source, self.connected, &refusal);
                request.refuse(status(&refusal));
                return None;
            }
        };
        let judged = Judged { served: Arc::clone(&self.scope.served), own: Arc::clone(&own) };
        let info = ConnectionInfo {
            workload: Arc::clone(&own.uid),
            direction: Direction::Inbound,
            source: self.source,
            original_destination: None,
            destination,
            hbone: self.transport == Transport::MutualTls,
            identity: Some(self.client.clone()),
        };
        let entry = shared.connections.enter(info, Some(judged.clone()));
        let details = self.details(&snapshot, &own, destination, request.asked());
        let introduction = self.introduction(&snapshot, &own, request.asked());
        drop(snapshot);
        let (spans, carried) = (shared.config.spans.as_ref(), request.asked().traceparent);
        let record = Record::open(&shared.metrics, details);
        let record = Box::new(record.joining(spans, carried));
        let app = async {
            judge(shared, &judged, &entry).await?;
            let dialled = shared.dialer().to_app(&self.scope.served, self.source, destination);
            let (app, link) = dialled.await?;
            if let Some(header) = introduction {
                relay::write(&app, &*header).await.map_err(ConnectError::from)?;
            }
            Ok::<_, ConnectionError>((app, link))
        };
        let session = self.session.take();
        let connected = match unless_gone(&mut request, app).await {
            Ok(connected) => request.accept(&own).map(|far| (connected, far)),
            Err(error) => {
                request.refuse(error.status());
                Err(error)
            }
        };
        match connected {
            Ok(((app, link), far)) => {
                record.established(arrived);
                let scope = self.scope.clone();
                Some(Accepted { scope, app, far, record, entry, session, _link: link, _place: place })
            }
            Err(error) => {
                record.finish(with_cause(Err(error), session.as_deref()).as_ref().err());
                None
            }
        }
    }

    /// A pod that calls itself through its service comes by loopback. Both ends of such a tunnel are the pod's
    /// own address, of the family it asks for. Only the pod itself can prove to be who lives here.
    fn come_home(&mut self, own: &Workload, authority: &Authority) {
        if !self.connected.ip().is_loopback() || self.client != own.identity() {
            return;
        }
        let asked = match authority {
            Authority::Address(target) => own.addresses.iter().find(|own| **own == target.ip()),
            Authority::Host { .. } => None,
        };
        if let Some(home) = asked.or_else(|| own.addresses.first()) {
            self.source.set_ip(*home);
            self.connected = SocketAddr::new(*home, mesh::HBONE_PORT);
        }
    }

    /// What an application that takes connections for others is told before the client's first byte.
    fn introduction(&self, snapshot: &Snapshot, own: &Workload, asked: &Asked) -> Option<Vec<u8>> {
        mesh::inbound::application_tunnel(snapshot, own, self.connected, &asked.authority)
            .filter(|tunnel| tunnel.protocol == TunnelProtocol::Proxy)?;
        let (target, named) = match &asked.authority {
            Authority::Address(target) => (*target, asked.forwarded.host.as_deref()),
            Authority::Host { host, port } => (SocketAddr::new(self.connected.ip(), *port), Some(&**host)),
        };
        Some(proxy_protocol::header(self.source, target, &self.client.to_string(), named))
    }

    fn details(
        &self,
        snapshot: &Snapshot,
        own: &Workload,
        destination: SocketAddr,
        asked: &Asked,
    ) -> Details {
        // An address alone is a hint: only if the proven identity agrees is it that workload. What comes from another
        // network has the address of a gateway, or one that means something else here.
        let shared = &self.scope.shared;
        let at_home = asked.network.as_deref().is_none_or(|network| *network == *shared.config.network);
        let known = at_home
            .then(|| shared.workload_at(snapshot, self.source.ip()))
            .flatten()
            .filter(|workload| workload.identity() == self.client);
        let source = match known {
            Some(workload) => Party::of(&workload, Some(self.client.clone())),
            None => Party::claimed(&asked.baggage, &self.client),
        };
        if let Some(trace) = &asked.traceparent {
            tracing::debug!(%trace, source = %self.source, client = ?asked.forwarded.client, "tunnelled");
        }
        Details {
            reporter: Reporter::Destination,
            source_address: self.source,
            source: Some(source),
            destination_address: self.connected,
            hbone_address: Some(destination.to_string()),
            destination: Some(Party::of(own, Some(own.identity()))),
            service: service_of(snapshot, own, destination.port(), asked.forwarded.host.as_deref()),
            transport: self.transport,
        }
    }
}

impl Request {
    fn asked(&self) -> &Asked {
        match self {
            Self::Stream(request) => &request.asked,
            Self::Direct(request) => &request.asked,
        }
    }

    /// Completes when the client gives up waiting.
    async fn gone(&mut self) -> ConnectionError {
        match self {
            Self::Stream(request) => {
                request.gone().await.map_or_else(ConnectionError::ClientGone, ConnectionError::Abandoned)
            }
            Self::Direct(request) => {
                request.gone().await;
                ConnectionError::Abandoned(Reason::CANCEL)
            }
        }
    }

    fn refuse(self, status: StatusCode) {
        match self {
            Self::Stream(request) => request.refuse(status),
            Self::Direct(request) => request.refuse(status),
        }
    }

    /// Answers that the application has accepted; `own` describes who did.
    fn accept(self, own: &Workload) -> Result<Far, ConnectionError> {
        match self {
            Self::Stream(request) => Ok(Far::Stream(request.accept(&baggage::of(own))?)),
            Self::Direct(request) => request.accept().ok_or(ConnectionError::Abandoned(Reason::CANCEL)),
        }
    }
}

/// What `work` comes to, unless the client gives up first.
async fn unless_gone<T>(
    request: &mut Request,
    work: impl Future<Output = Result<T, ConnectionError>>,
) -> Result<T, ConnectionError> {
    tokio::select! {
        biased;
        gone = request.gone() => Err(gone),
        done = work => done,
    }
}

/// The service a client of this workload most likely addressed: the one it names, else one with this port.
pub(crate) fn service_of(
    snapshot: &Snapshot,
    own: &Workload,
    port: u16,
    named: Option<&str>,
) -> Option<ServiceName> {
    let by_name = || own.services.keys().find(|key| Some(&*key.hostname) == named);
    let serves = |ports: &mesh::workload::PortMap| {
        ports.iter().any(|(&service, &target)| port == if target == 0 { service } else { target })
    };
    let by_port = || own.services.iter().find(|(_, ports)| serves(ports)).map(|(key, _)| key);
    let service = by_name().or_else(by_port)?;
    snapshot.service(service).map(|service| ServiceName::from(&**service))
}

/// What a refused destination is answered with.
fn status(refusal: &InboundRefusal) -> StatusCode {
    match refusal {
        InboundRefusal::Mismatch { .. } => StatusCode::BAD_REQUEST,
        InboundRefusal::UnknownService { .. }
        | InboundRefusal::UnknownPort { .. }
        | InboundRefusal::ReservedPort(_) => StatusCode::SERVICE_UNAVAILABLE,
    }
}
