//! The task that sends spans to the collector.
//!
//! Invariant: a batch stays until the collector has taken or refused it, or has been away for too long; every wait has a
//! limit. It may be interrupted anywhere: what is not acknowledged is sent once more, under the same ids.

use std::time::Duration;

use control::grpc::{ConnectError, Endpoint, explain, status};
use opentelemetry_proto::tonic::collector::trace::v1::trace_service_client::TraceServiceClient;
use opentelemetry_proto::tonic::resource::v1::Resource;
use tokio::sync::{mpsc, oneshot};
use tokio::time::{Instant, sleep, timeout};
use tonic::{Code, Status};
use tunnel::Span;

use super::message;
use super::metrics::{Dropped, Metrics};
use crate::config;

/// Spans of one request.
const BATCH: usize = 512;
/// How long a span waits for others to be sent with.
const DELAY: Duration = Duration::from_secs(1);
/// How long the collector has for an answer.
const ANSWER: Duration = Duration::from_secs(10);
/// The pause after the first failure, and the longest; each is twice the one before.
const PAUSES: (Duration, Duration) = (Duration::from_secs(1), Duration::from_secs(15));
/// How much of a pause is random, in both directions, so that agents do not come back all at once.
const JITTER: f64 = 0.2;
/// How long a batch is tried again.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long the last spans may take at the end.
const FLUSH: Duration = Duration::from_secs(2);

/// What waits, and where it is to go.
pub(super) struct Export {
    endpoint: Endpoint,
    resource: Resource,
    waiting: mpsc::Receiver<Span>,
    metrics: Metrics,
    batch: Vec<Span>,
    client: Option<TraceServiceClient<tonic::transport::Channel>>,
    /// The next pause; none while all is well.
    pause: Option<Duration>,
}

/// Why a batch was not taken.
enum Failure {
    /// It may be taken later.
    Passing(String),
    /// It never will be.
    Lasting(String),
}

impl Export {
    pub(super) fn new(settings: &config::Spans, waiting: mpsc::Receiver<Span>, metrics: Metrics) -> Self {
        Self {
            endpoint: settings.endpoint.clone(),
            resource: message::resource(&settings.resource),
            waiting,
            metrics,
            batch: Vec::new(),
            client: None,
            pause: None,
        }
    }

    /// Sends what comes until it is `stopped`, then what waits.
    pub(super) async fn run(mut self, stopped: oneshot::Receiver<()>) {
        tokio::select! {
            biased;
            _ = stopped => {}
            () = self.go_on() => {}
        }
        self.end().await;
    }

    /// Sends what comes for as long as anything may come.
    async fn go_on(&mut self) {
        while self.collect().await {
            let since = Instant::now();
            while !self.batch.is_empty() {
                let Err(failure) = self.send().await else { break };
                match failure {
                    Failure::Passing(reason) if since.elapsed() < PATIENCE => self.rest(&reason).await,
                    Failure::Passing(reason) => {
                        self.lose(Dropped::Unreachable);
                        self.rest(&reason).await;
                    }
                    Failure::Lasting(reason) => {
                        self.lose(Dropped::Refused);
                        self.rest(&reason).await;
                    }
                }
            }
        }
    }

    /// Fills the batch; false if nothing will come any more.
    async fn collect(&mut self) -> bool {
        if self.batch.is_empty() && self.waiting.recv_many(&mut self.batch, BATCH).await == 0 {
            return false;
        }
        let more = async {
            while let Some(room) = BATCH.checked_sub(self.batch.len()).filter(|room| *room > 0) {
                if self.waiting.recv_many(&mut self.batch, room).await == 0 {
                    break;
                }
            }
        };
        // What came until then is there.
        let _ = timeout(DELAY, more).await;
        true
    }

    /// Sends the batch, which is empty if it was taken.
    async fn send(&mut self) -> Result<(), Failure> {
        match self.try_to_send().await {
            Ok(rejected) => {
                let rejected = usize::try_from(rejected).unwrap_or_default().min(self.batch.len());
                let taken = self.batch.len() - rejected;
                self.metrics.exported.inc_by(u64::try_from(taken).unwrap_or_default());
                self.metrics.lose(Dropped::Refused, rejected);
                self.batch.clear();
                if self.pause.take().is_some() {
                    tracing::info!(address = %self.endpoint.address, "spans are exported again");
                }
                Ok(())
            }
            Err(failure) => {
                self.metrics.failures.inc();
                Err(failure)
            }
        }
    }

    /// Sends the batch, and tells how many of it the collector did not want.
    async fn try_to_send(&mut self) -> Result<i64, Failure> {
        // Where it fails, the next attempt looks the name up again, and reads the roots of trust.
        let mut client = match self.client.take() {
            Some(client) => client,
            None => TraceServiceClient::new(self.endpoint.connect().await?),
        };
        let request = self.endpoint.request(message::request(&self.resource, &self.batch)).await;
        // There is no token to be read.
        let request = request.map_err(|error| Failure::Passing(error.to_string()))?;
        let answer = timeout(ANSWER, client.export(request)).await;
        let answer =
            answer.map_err(|_| Failure::Passing(format!("no answer within {} s", ANSWER.as_secs())))??;
        self.client = Some(client);
        Ok(answer.into_inner().partial_success.map_or(0, |partly| partly.rejected_spans))
    }

    fn lose(&mut self, reason: Dropped) {
        self.metrics.lose(reason, self.batch.len());
        self.batch.clear();
    }

    /// Tells of a failure, once in a row of them, and rests.
    async fn rest(&mut self, failure: &str) {
        let address = &self.endpoint.address;
        let pause = match self.pause {
            None => {
                tracing::warn!(
                    %address,
                    %failure,
                    "spans are not exported; connections go on. Is the collector there, and does it take OTLP by gRPC? Spans \
                     wait, and are dropped when --otlp-queue of them do"
                );
                PAUSES.0
            }
            Some(pause) => {
                tracing::debug!(%address, %failure, "spans are still not exported");
                pause
            }
        };
        self.pause = Some(PAUSES.1.min(pause * 2));
        sleep(pause.mul_f64(rand::random_range(1.0 - JITTER..1.0 + JITTER))).await;
    }

    /// Sends what waits, within the limit, and tells what could not be sent.
    async fn end(mut self) {
        self.waiting.close();
        let last = async {
            loop {
                while self.batch.len() < BATCH
                    && let Ok(span) = self.waiting.try_recv()
                {
                    self.batch.push(span);
                }
                if self.batch.is_empty() || self.send().await.is_err() {
                    break;
                }
            }
        };
        // What is left says whether it was too long.
        let _ = timeout(FLUSH, last).await;
        let count = self.batch.len() + self.waiting.len();
        if count > 0 {
            self.metrics.lose(Dropped::Ended, count);
            tracing::warn!(count, address = %self.endpoint.address, "the agent ends before the collector took these spans");
        }
    }
}

impl From<ConnectError> for Failure {
    fn from(error: ConnectError) -> Self {
        Self::Passing(explain(&error))
    }
}

impl From<Status> for Failure {
    /// As OTLP says which answers are worth another attempt.
    fn from(answer: Status) -> Self {
        let reason = match answer.code() {
            Code::Unauthenticated | Code::PermissionDenied => {
                format!("{:?}: {}; check --otlp-headers", answer.code(), answer.message())
            }
            _ => status(&answer),
        };
        match answer.code() {
            Code::Cancelled
            | Code::DeadlineExceeded
            | Code::ResourceExhausted
            | Code::Aborted
            | Code::OutOfRange
            | Code::Unavailable
            | Code::DataLoss => Self::Passing(reason),
            // What breaks the connection is told like this.
            Code::Unknown if std::error::Error::source(&answer).is_some() => Self::Passing(reason),
            _ => Self::Lasting(reason),
        }
    }
}
