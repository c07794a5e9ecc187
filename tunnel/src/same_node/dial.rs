//! The client's end: find the pod, leave an offer with it, connect, and wait for what it says.

use std::io::{self, ErrorKind};
use std::mem::MaybeUninit;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use http::StatusCode;
use mesh::{Authority, Workload};
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::offers::{Answer, Offer, Taken, Token};
use super::{GREETING, SameNode};
use crate::gate::Link;
use crate::hbone::baggage::{self, Baggage};
use crate::hbone::forwarded::Forwarded;
use crate::hbone::server::Asked;
use crate::hbone::{ConnectError, Traceparent};
use crate::relay;
use crate::scope::{Scope, own_workload};
use crate::served::Served;
use crate::telemetry::SameNodeOutcome;

/// How long connecting and being recognized may take before HBONE is tried instead.
const LIMIT: Duration = Duration::from_secs(2);

/// What is wanted of another pod.
pub(crate) struct Wanted<'a> {
    /// The pod that connects.
    pub(crate) own: &'a Workload,
    /// Its application's address.
    pub(crate) source: SocketAddr,
    /// The HBONE port of the other one.
    pub(crate) next_hop: SocketAddr,
    /// The other one.
    pub(crate) workload: &'a Workload,
    /// The identities of which it must have one.
    pub(crate) accepted: &'a [String],
    /// What it is asked for.
    pub(crate) authority: &'a Authority,
    /// The host of the service that was addressed.
    pub(crate) host: Option<String>,
    /// The trace that the connection is part of.
    pub(crate) traceparent: Traceparent,
}

/// A connection that the other end has recognized, and not answered yet.
pub(crate) struct Made {
    stream: TcpStream,
    link: Link,
    answer: oneshot::Receiver<Answer>,
}

/// Why a direct connection did not come about.
#[derive(Debug, thiserror::Error)]
enum Unmade {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("who accepted the connection is not this agent, or does not see the address it comes from")]
    NotOurs,
    #[error("it was not recognized within {LIMIT:?}")]
    Timeout,
}

/// Makes a direct connection to a pod that is served here; none where HBONE is to be used.
pub(crate) async fn make(scope: &Scope, wanted: &Wanted<'_>) -> Option<Made> {
    if scope.shared.config.same_node != SameNode::Direct {
        return None;
    }
    let there = find(scope, wanted)?;
    let (pauses, started) = (&scope.served.pauses, Instant::now());
    if pauses.holds(there.number, started) {
        return None;
    }
    let made = timeout(LIMIT, connect(scope, &there, wanted)).await.unwrap_or(Err(Unmade::Timeout));
    match made {
        Ok(made) => {
            scope.shared.metrics.count_same_node(SameNodeOutcome::Direct);
            Some(made)
        }
        Err(reason) => {
            pauses.begin(there.number, Instant::now());
            scope.shared.metrics.count_same_node(SameNodeOutcome::Fallback);
            tracing::info!(
                source = %wanted.source,
                destination = %wanted.next_hop,
                %reason,
                "no direct connection to a pod of this node; it is reached by HBONE for a while"
            );
            None
        }
    }
}

/// The pod that is wanted, if it is served here, is another one, and may show an identity that is accepted.
fn find(scope: &Scope, wanted: &Wanted<'_>) -> Option<Arc<Served>> {
    let Wanted { own, workload, accepted, .. } = wanted;
    let identity = workload.identity();
    let acceptable = own.uid != workload.uid
        && own.trust_domain == workload.trust_domain
        && accepted.iter().any(|name| *name == identity.to_string());
    if !acceptable {
        return None;
    }
    let snapshot = scope.shared.store.load();
    let is_it = |served: &Arc<Served>| {
        served.takes_tunnels()
            && served.pod.name == workload.name
            && served.pod.namespace == workload.namespace
            && own_workload(&snapshot, &served.pod)
                .is_some_and(|now| now.uid == workload.uid && now.identity() == identity)
    };
    scope.shared.pods().into_iter().filter(is_it).max_by_key(|served| served.number)
}

async fn connect(scope: &Scope, there: &Served, wanted: &Wanted<'_>) -> Result<Made, Unmade> {
    let token: Token = rand::random();
    let (proven, mut proof) = oneshot::channel();
    let taken = Taken { offer: wanted.offer(), token, proven };
    let dialer = scope.shared.dialer();
    let socket = scope.served.pod.sockets.to_network(wanted.next_hop)?;
    let (left, dialling) = there.offers.leave(wanted.next_hop, taken, || {
        let dialling = dialer.begin(&scope.served, socket, wanted.next_hop)?;
        Ok::<_, ConnectError>((dialling.own(), dialling))
    })?;
    let (stream, link) = dialer.finish(dialling).await?;
    relay::write(&stream, &[GREETING, &token[..]].concat()[..]).await?;
    let answer = tokio::select! {
        biased;
        proven = &mut proof => proven.ok(),
        // The other end is silent until it has recognized us: a TLS server's alert, or a lost connection.
        () = spoken(&stream) => proof.try_recv().ok(),
    };
    drop(left);
    Ok(Made { stream, link, answer: answer.ok_or(Unmade::NotOurs)? })
}

/// Completes when there is something to be read, or nothing ever will be. What it is stays unread.
async fn spoken(stream: &TcpStream) {
    loop {
        let read = stream.readable().await.and_then(|()| {
            let peek = || SockRef::from(stream).peek(&mut [MaybeUninit::uninit()]);
            stream.try_io(Interest::READABLE, peek)
        });
        match read {
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Ok(_) | Err(_) => return,
        }
    }
}

impl Wanted<'_> {
    fn offer(&self) -> Offer {
        Offer {
            client: self.own.identity(),
            asked: Box::new(Asked {
                authority: self.authority.clone(),
                baggage: Baggage::parse(&baggage::of(self.own)),
                forwarded: Forwarded { client: Some(self.source), host: self.host.clone() },
                traceparent: Some(self.traceparent),
                network: None,
            }),
        }
    }
}

impl Made {
    /// The connection, once the other end has the application's.
    pub(crate) async fn answered(self, limit: Duration) -> Result<(TcpStream, Link), ConnectError> {
        match timeout(limit, self.answer).await {
            Ok(Ok(Ok(()))) => Ok((self.stream, self.link)),
            Ok(Ok(Err(status))) => Err(ConnectError::Status(status)),
            // It went without an answer, as a stream that is dropped does.
            Ok(Err(_)) => Err(ConnectError::Status(StatusCode::SERVICE_UNAVAILABLE)),
            Err(_) => Err(ConnectError::NoAnswer(limit)),
        }
    }
}
