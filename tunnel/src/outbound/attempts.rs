//! Another endpoint in place of one that cannot be reached.
//!
//! Until the far end has accepted (a plain connection stands, a CONNECT was answered with 200) not one byte of the
//! application has left, so nothing is done twice by going elsewhere. What is worth it, [`may_go_elsewhere`] says.
//! Invariant: no address is tried twice, the number of attempts and the time in which others are tried are bounded, and an
//! endpoint that keeps silent, be it before or after the CONNECT, costs but a share of that time while there is another one. Each attempt is logged and
//! counted as what it was; what became of the connection is counted once.

use std::fmt;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;
use mesh::Workload;
use prometheus_client::encoding::{EncodeLabelSet, EncodeLabelValue, LabelValueEncoder};
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep, timeout};

use super::{Hop, Way, dial, plan};
use crate::config::Timeouts;
use crate::error::ConnectionError;
use crate::gate::Link;
use crate::hbone::{ConnectError, Traceparent};
use crate::relay::{self, Far};
use crate::same_node::Made;
use crate::scope::Scope;
use crate::telemetry::Metrics;
use crate::tls::HandshakeError;

/// Endpoints that are tried for one connection.
const ATTEMPTS: usize = 5;
/// How often a plan may lead to an address that was tried already, under another workload's name.
const PLANS: usize = 8;
/// How long the far end may take to accept a connection that its application has reset already.
const LAST_CHANCE: Duration = Duration::from_secs(1);

/// What must not be tried again.
#[derive(Debug, Default)]
pub(super) struct Tried {
    pub(super) addresses: Vec<SocketAddr>,
    /// Uids.
    pub(super) workloads: Vec<Arc<str>>,
}

/// What became of a connection whose first endpoint could not be reached.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Retried {
    /// Another endpoint took it.
    Connected,
    /// There was no other.
    NoOther,
    /// As many were tried as may be.
    AttemptsSpent,
    /// The time in which others are tried was over.
    TimeSpent,
    /// Another one answered, and what it said counts for all.
    Refused,
}

impl EncodeLabelValue for Retried {
    fn encode(&self, encoder: &mut LabelValueEncoder<'_>) -> fmt::Result {
        let label = match self {
            Self::Connected => "connected",
            Self::NoOther => "no_other_endpoint",
            Self::AttemptsSpent => "attempts_spent",
            Self::TimeSpent => "time_spent",
            Self::Refused => "refused",
        };
        label.encode(encoder)
    }
}

/// The label of the counter.
#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
pub(crate) struct Outcome {
    pub(crate) outcome: Retried,
}

/// Where to connect to.
pub(super) struct Next<'a> {
    pub(super) hop: &'a Hop,
    /// A connection to it that stands already, without a tunnel.
    pub(super) made: Option<Made>,
    /// The trace that it is part of.
    pub(super) trace: Traceparent,
}

/// An attempt that failed, and where to try next.
pub(super) struct Failed {
    pub(super) error: ConnectionError,
    pub(super) another: Option<Hop>,
}

/// The attempts to connect one connection.
pub(super) struct Attempts {
    began: Instant,
    /// For one endpoint, while there is another.
    each: Duration,
    /// For as long others are tried.
    total: Duration,
    count: usize,
    tried: Tried,
}

impl Attempts {
    pub(super) fn new(limits: &Timeouts) -> Self {
        let (each, total) = (limits.endpoint, limits.retry);
        Self { began: Instant::now(), each, total, count: 0, tried: Tried::default() }
    }

    /// Connects to `hop`, or says where to go instead. The link is that of a socket of this connection's own.
    pub(super) async fn connect(
        &mut self,
        scope: &Scope,
        own: &Arc<Workload>,
        way: Way,
        Next { hop, made, trace }: Next<'_>,
        app: &TcpStream,
    ) -> Result<(Far, Option<Link>), Failed> {
        self.count += 1;
        self.tried.note(hop);
        if hop.tunnel.is_some()
            && made.is_none()
            // The time that our own certificate takes is not the endpoint's.
            && let Err(error) = scope.served.user.ready(&own.identity()).await
        {
            return Err(self.failed(scope, error));
        }
        let dialling = async {
            tokio::select! {
                biased;
                connected = dial_or_wait(scope, own, way.source, hop, (made, trace)) => connected.map_err(ConnectionError::from),
                () = gone(app) => Err(ConnectionError::GaveUp),
            }
        };
        let mut dialling = pin!(dialling);
        let patience = self.each.min(self.left());
        let connected = match timeout(patience, &mut dialling).await {
            Ok(connected) => connected,
            Err(_) => match self.elsewhere(scope, own, way).await {
                Ok(another) => {
                    let error = ConnectError::Timeout(patience).into();
                    return Err(Failed { error, another: Some(another) });
                }
                // There is none, so this one gets the time that each step of it may take.
                Err(_) => dialling.await,
            },
        };
        let error = match connected {
            Ok(far) => {
                if self.count > 1 {
                    count(&scope.shared.metrics, Retried::Connected);
                }
                return Ok(far);
            }
            Err(ConnectionError::Connect(error)) => error,
            Err(error) => return Err(Failed { error, another: None }),
        };
        if !may_go_elsewhere(&error) {
            return Err(self.failed(scope, error));
        }
        match self.elsewhere(scope, own, way).await {
            Ok(another) => Err(Failed { error: error.into(), another: Some(another) }),
            Err(why) => {
                // Where nothing was to be chosen, nothing was retried.
                if hop.service.is_some() {
                    count(&scope.shared.metrics, why);
                }
                Err(Failed { error: error.into(), another: None })
            }
        }
    }

    /// Ends with an error that counts wherever else one would go.
    fn failed(&self, scope: &Scope, error: ConnectError) -> Failed {
        if self.count > 1 {
            count(&scope.shared.metrics, Retried::Refused);
        }
        Failed { error: error.into(), another: None }
    }

    fn left(&self) -> Duration {
        self.total.saturating_sub(self.began.elapsed())
    }

    /// Another endpoint than those tried.
    async fn elsewhere(&mut self, scope: &Scope, own: &Workload, way: Way) -> Result<Hop, Retried> {
        if self.count >= ATTEMPTS {
            return Err(Retried::AttemptsSpent);
        }
        if self.left().is_zero() {
            return Err(Retried::TimeSpent);
        }
        for _ in 0..PLANS {
            let Ok(hop) = plan(scope, own, way, &self.tried).await else { break };
            if !self.tried.addresses.contains(&hop.address) {
                return Ok(hop);
            }
            let workload = hop.workload.map(|workload| Arc::clone(&workload.uid));
            match workload.filter(|uid| !self.tried.workloads.contains(uid)) {
                Some(uid) => self.tried.workloads.push(uid),
                None => break,
            }
        }
        Err(Retried::NoOther)
    }
}

impl Tried {
    fn note(&mut self, hop: &Hop) {
        self.addresses.push(hop.address);
        // Of a workload that is known by name only, another address may do.
        if let Some(workload) = hop.workload.as_ref().filter(|workload| !workload.addresses.is_empty()) {
            self.workloads.push(Arc::clone(&workload.uid));
        }
    }
}

/// Dials, unless there is a connection that was made without a tunnel: that has but to be answered.
async fn dial_or_wait(
    scope: &Scope,
    own: &Workload,
    source: SocketAddr,
    hop: &Hop,
    (made, trace): (Option<Made>, Traceparent),
) -> Result<(Far, Option<Link>), ConnectError> {
    let Some(made) = made else { return dial(scope, own, source, hop, trace).await };
    let (stream, link) = made.answered(scope.shared.config.timeouts.answer).await?;
    Ok((Far::Tcp(stream), Some(link)))
}

/// Completes some time after the application has reset its connection: if the other end is about to accept, it is to hear
/// of the reset, and not of an end in good order.
async fn gone(app: &TcpStream) {
    relay::reset_by_peer(app).await;
    sleep(LAST_CHANCE).await;
}

fn count(metrics: &Metrics, outcome: Retried) {
    metrics.retries.get_or_create(&Outcome { outcome }).inc();
}

/// Whether another endpoint may do what this one did not. By then it has got nothing of the application's, so this is a
/// question of sense alone: of whether the fault is the endpoint's own.
fn may_go_elsewhere(error: &ConnectError) -> bool {
    match error {
        // Nobody there, or nobody who can prove to be the one that is meant.
        ConnectError::Io(_) | ConnectError::Timeout(_) | ConnectError::Blocked(_) => true,
        ConnectError::Tls(HandshakeError::OwnCertificate(_)) => false,
        ConnectError::Tls(_) => true,
        // The tunnel broke before it answered, or its peer refused the stream.
        ConnectError::Http2(_) => true,
        // A peer's agent whose application refuses, is gone or full; it says so before it takes a byte. A denial (401) is
        // policy, and one does not look for somebody who knows less of it; 400 is a fault of ours or of the mesh's.
        ConnectError::Status(status) => matches!(
            *status,
            StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT
        ),
        // All the time that others would have had is gone.
        ConnectError::NoAnswer(_) => false,
        // Faults of ours, wherever we go.
        ConnectError::Certificate(_) | ConnectError::Authority(_) => false,
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn a_fault_of_the_endpoint_leads_elsewhere_and_any_other_does_not() {
        let second = Duration::from_secs(1);
        let status = |code| ConnectError::Status(StatusCode::from_u16(code).unwrap());
        for (error, elsewhere) in [
            (io::Error::from(io::ErrorKind::ConnectionRefused).into(), true),
            (ConnectError::Timeout(second), true),
            (ConnectError::Blocked(second), true),
            (HandshakeError::NoCertificate.into(), true),
            (HandshakeError::OwnCertificate(String::new()).into(), false),
            (ConnectError::Http2("".into()), true),
            (ConnectError::NoAnswer(second), false),
            (ConnectError::Authority(String::new()), false),
            (status(400), false),
            (status(401), false),
            (status(404), false),
            (status(500), false),
            (status(502), true),
            (status(503), true),
            (status(504), true),
        ] {
            assert_eq!(may_go_elsewhere(&error), elsewhere, "{error}");
        }
    }
}
