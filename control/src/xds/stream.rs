//! One stream, from the connection to its end.
//!
//! Invariants: what is readable at once is taken over at once: a change that touches workloads and policies comes as two
//! responses, the second about a millisecond after the first, and one without the other would be a moment in which a policy
//! does not apply. A response is answered when it is in force. Every wait is bounded; that the peer lives is the business of
//! the connection's pings.

use std::sync::Arc;
use std::time::Duration;

use mesh::Store;
use tokio::sync::{mpsc, watch};
use tokio::time::{Instant, sleep_until, timeout, timeout_at};
use tonic::Streaming;
use tracing::{debug, info, warn};

use super::apply::{Applied, apply};
use super::client::{Ask, Synced};
use super::ending::Ending;
use super::kind::Kind;
use super::metrics::Metrics;
use super::session::{Outcome, Session};
use super::standing::Ledger;
use crate::grpc::Endpoint;
use crate::proto::discovery::aggregated_discovery_service_client::AggregatedDiscoveryServiceClient;
use crate::proto::discovery::{DeltaDiscoveryRequest, DeltaDiscoveryResponse};

/// The largest response, in bytes. A larger one ends the stream before it is read.
const LARGEST: usize = 200 << 20;
/// How long the first response for each type may take. The control plane may have to gather the whole mesh first.
const FIRST: Duration = Duration::from_secs(60);
/// How long a request may wait to be sent.
const SEND: Duration = Duration::from_secs(30);
/// How many requests may wait to be sent.
const REQUESTS: usize = 64;
/// A batch ends when nothing came for this long, and at the latest after this long.
const QUIET: Duration = Duration::from_millis(5);
const BATCH: Duration = Duration::from_millis(100);
/// The most responses of a batch, and the most bytes after which no further one is added.
const BATCH_RESPONSES: usize = 64;
const BATCH_BYTES: usize = 16 << 20;
/// How long what came first waits for what is still missing: workloads without the policies that apply to them would be
/// open to everyone.
const TOGETHER: Duration = Duration::from_secs(1);
/// How many resources that could not be taken over are logged for each response.
const LOGGED: usize = 10;

/// What streams need, one after the other.
pub(super) struct Stream {
    pub(super) endpoint: Endpoint,
    pub(super) store: Arc<Store>,
    pub(super) metrics: Metrics,
    pub(super) standing: Ledger,
    pub(super) session: Session,
    pub(super) asked: mpsc::Receiver<Ask>,
    pub(super) synced: watch::Sender<Synced>,
}

type Requests = mpsc::Sender<DeltaDiscoveryRequest>;

impl Stream {
    /// Runs one stream to its end. Says how it ended, and whether everything came that it had to bring.
    pub(super) async fn run(&mut self) -> (Ending, bool) {
        match self.open().await {
            Ok((requests, responses)) => {
                let connected = self.metrics.connected();
                self.standing.connected();
                let ending = self.follow(&requests, responses).await;
                drop(connected);
                (ending, self.session.unanswered().next().is_none())
            }
            Err(ending) => (ending, false),
        }
    }

    async fn open(&mut self) -> Result<(Requests, Streaming<DeltaDiscoveryResponse>), Ending> {
        let channel = self.endpoint.connect().await.map_err(Ending::NotConnected)?;
        let (requests, mut sent) = mpsc::channel(REQUESTS);
        for request in self.session.open(std::time::Instant::now()) {
            send(&requests, request).await?;
        }
        let outbound = futures_util::stream::poll_fn(move |context| sent.poll_recv(context));
        let request = self.endpoint.request(outbound).await.map_err(Ending::NoToken)?;
        let mut client = AggregatedDiscoveryServiceClient::new(channel).max_decoding_message_size(LARGEST);
        // Some servers send no headers before their first response.
        match timeout(FIRST, client.delta_aggregated_resources(request)).await {
            Ok(Ok(response)) => {
                info!(address = %self.endpoint.address, "a stream of the control plane stands");
                Ok((requests, response.into_inner()))
            }
            Ok(Err(status)) => Err(Ending::refused(status)),
            Err(_) => Err(Ending::Silent(Kind::Address)),
        }
    }

    async fn follow(
        &mut self,
        requests: &Requests,
        mut responses: Streaming<DeltaDiscoveryResponse>,
    ) -> Ending {
        let first = Instant::now() + FIRST;
        loop {
            let silent = self.session.unanswered().next();
            let fresh = self.session.fresh_at().map(Instant::from_std);
            tokio::select! {
                message = responses.message() => {
                    let (batch, end) = match message {
                        Ok(Some(response)) => self.gather(response, &mut responses).await,
                        other => (Vec::new(), Some(end_of(other))),
                    };
                    if let Err(ending) = self.take(batch, requests).await {
                        return end.unwrap_or(ending);
                    }
                    if let Some(ending) = end {
                        return ending;
                    }
                }
                Some(Ask { key, waiter }) = self.asked.recv() => {
                    let request = self.session.demand(&key, waiter, std::time::Instant::now());
                    if let Some(request) = request
                        && let Err(ending) = send(requests, request).await
                    {
                        return ending;
                    }
                }
                () = at(fresh) => return Ending::Fresh,
                () = at(silent.map(|_| first)) => {
                    return Ending::Silent(silent.unwrap_or(Kind::Address));
                }
            }
        }
    }

    /// The response, what can be read right after it, and the stream's end if that came.
    async fn gather(
        &self,
        first: DeltaDiscoveryResponse,
        responses: &mut Streaming<DeltaDiscoveryResponse>,
    ) -> (Vec<DeltaDiscoveryResponse>, Option<Ending>) {
        let began = Instant::now();
        let mut missing: Vec<Kind> = Synced::of(&self.session).pending().collect();
        let mut bytes = size(&first);
        missing.retain(|kind| kind.type_url() != first.type_url);
        let mut batch = vec![first];
        // However large the first is, one more may belong to it.
        while batch.len() < BATCH_RESPONSES && (bytes < BATCH_BYTES || batch.len() == 1) {
            let until = if missing.is_empty() {
                (Instant::now() + QUIET).min(began + BATCH)
            } else {
                began + TOGETHER
            };
            match timeout_at(until, responses.message()).await {
                Ok(Ok(Some(response))) => {
                    bytes = bytes.saturating_add(size(&response));
                    missing.retain(|kind| kind.type_url() != response.type_url);
                    batch.push(response);
                }
                Ok(other) => return (batch, Some(end_of(other))),
                Err(_) => break,
            }
        }
        (batch, None)
    }

    /// Takes a batch over, and answers.
    async fn take(&mut self, batch: Vec<DeltaDiscoveryResponse>, requests: &Requests) -> Result<(), Ending> {
        let mut known = Vec::with_capacity(batch.len());
        for mut response in batch {
            let kind = Kind::of(&response.type_url);
            self.metrics.received(kind, size(&response));
            match kind {
                Some(kind) => {
                    self.session.complete(kind, &mut response);
                    known.push((kind, response));
                }
                None => warn!(type_url = ?response.type_url, "a response of a type that was not asked for"),
            }
        }
        if known.is_empty() {
            return Ok(());
        }
        let (store, began) = (Arc::clone(&self.store), Instant::now());
        let applied = tokio::task::spawn_blocking(move || apply(&store, known)).await;
        let Applied { outcomes, changed } = applied.map_err(|error| Ending::Lost(error.to_string()))?;
        self.metrics.updated();
        let mut answers = Vec::with_capacity(outcomes.len());
        for outcome in outcomes {
            self.tell(&outcome);
            let (kind, refused) = (outcome.kind, outcome.rejected.first().map(|first| first.reason.clone()));
            answers.extend(self.session.settle(outcome, std::time::Instant::now()));
            self.standing.answered(kind, refused.as_deref(), self.session.held(kind));
        }
        debug!(
            changed,
            took = ?began.elapsed(),
            addresses = self.session.held(Kind::Address),
            policies = self.session.held(Kind::Authorization),
            "responses of the control plane taken over"
        );
        let synced = Synced::of(&self.session);
        self.synced.send_if_modified(|known| std::mem::replace(known, synced) != synced);
        for answer in answers {
            send(requests, answer).await?;
        }
        Ok(())
    }

    fn tell(&self, outcome: &Outcome) {
        if outcome.rejected.is_empty() {
            return;
        }
        self.metrics.rejected(outcome.kind, outcome.rejected.len());
        for rejected in outcome.rejected.iter().take(LOGGED) {
            warn!(reason = %rejected.reason, "a resource of the control plane was refused; what was known of it stays in force");
        }
        if let Some(more) = outcome.rejected.len().checked_sub(LOGGED).filter(|more| *more > 0) {
            warn!(more, "further resources of the same response were refused");
        }
    }
}

fn end_of(message: Result<Option<DeltaDiscoveryResponse>, tonic::Status>) -> Ending {
    message.map_or_else(Ending::failed, |_| Ending::Complete)
}

/// The bytes of the resources in a response.
fn size(response: &DeltaDiscoveryResponse) -> usize {
    response
        .resources
        .iter()
        .filter_map(|resource| resource.resource.as_ref())
        .map(|any| any.value.len())
        .sum()
}

async fn send(requests: &Requests, request: DeltaDiscoveryRequest) -> Result<(), Ending> {
    match requests.send_timeout(request, SEND).await {
        Err(mpsc::error::SendTimeoutError::Timeout(_)) => Err(Ending::Stuck),
        // Where nobody takes requests any more the stream has ended, and what comes from it says how.
        Ok(()) | Err(mpsc::error::SendTimeoutError::Closed(_)) => Ok(()),
    }
}

/// Completes then, or never.
async fn at(then: Option<Instant>) {
    match then {
        Some(then) => sleep_until(then).await,
        None => std::future::pending().await,
    }
}
