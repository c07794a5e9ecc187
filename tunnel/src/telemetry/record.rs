//! The record of one connection, from its opening to its end.
//!
//! It lives as long as the connection: opening counts and logs, [`Record::finish`] counts and logs the end.
//! One that is dropped unfinished (the worker ends) still closes the books.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Instant;

use mesh::Identity;
use tracing::{debug, error, info, warn};

use super::known::Held;
use super::labels::{Common, Labels, Reporter};
use super::metrics::Metrics;
use super::party::{Party, ServiceName};
use super::span::{Begun, Carriage, Spans, begin};
use crate::error::ConnectionError;
use crate::hbone::Traceparent;
use crate::relay::{Counters, Meter};

/// The access log's scope.
const ACCESS: &str = "access";

/// Who connects to whom, once that is known.
#[derive(Debug)]
pub(crate) struct Details {
    pub(crate) reporter: Reporter,
    pub(crate) source_address: SocketAddr,
    pub(crate) source: Option<Party>,
    /// The address dialled, or arrived at: the HBONE port's for a tunnel.
    pub(crate) destination_address: SocketAddr,
    /// What was asked for inside the tunnel.
    pub(crate) hbone_address: Option<String>,
    pub(crate) destination: Option<Party>,
    pub(crate) service: Option<ServiceName>,
    pub(crate) transport: Transport,
}

/// How a connection is carried between its two ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Transport {
    /// As it is: nobody has proven anything.
    Plain,
    /// In a tunnel; both identities are proven.
    MutualTls,
    /// As it is between two pods of this agent, which knows both identities.
    Direct,
}

impl Transport {
    /// Whether both identities are known for certain.
    pub(super) fn identifies(self) -> bool {
        self != Self::Plain
    }

    /// What the log says about it, if anything.
    fn told(self) -> Option<&'static str> {
        (self == Self::Direct).then_some("direct")
    }
}

impl From<Transport> for Carriage {
    fn from(transport: Transport) -> Self {
        match transport {
            Transport::Plain => Self::Plain,
            Transport::MutualTls => Self::Tunnel,
            Transport::Direct => Self::Direct,
        }
    }
}

impl From<&Details> for Common {
    fn from(details: &Details) -> Self {
        Self {
            reporter: details.reporter,
            source: details.source.clone().unwrap_or_default(),
            destination: details.destination.clone().unwrap_or_default(),
            service: details.service.clone().unwrap_or_default(),
            mutual_tls: details.transport == Transport::MutualTls,
        }
    }
}

/// The open record of a connection.
#[derive(Debug)]
pub(crate) struct Record {
    metrics: Metrics,
    details: Details,
    labels: Labels,
    _held: Option<Held>,
    counters: Counters,
    opened: Instant,
    finished: bool,
    /// Where it is sampled and somebody collects it.
    span: Option<Box<Begun>>,
}

impl Record {
    /// Opens the books of a connection.
    pub(crate) fn open(metrics: &Metrics, details: Details) -> Self {
        let (labels, held) = metrics.labels(&details);
        metrics.opened.get_or_create(&labels).inc();
        metrics.sockets.get_or_create(&labels.reporter()).inc();
        // "Received" is what the server receives, whoever reports; the near end is the client at the source.
        let received = Meter::new(metrics.received_bytes.get_or_create_owned(&labels));
        let sent = Meter::new(metrics.sent_bytes.get_or_create_owned(&labels));
        let counters = match details.reporter {
            Reporter::Source => Counters { sent: received, received: sent },
            Reporter::Destination => Counters { sent, received },
        };
        let record = Self {
            metrics: metrics.clone(),
            details,
            labels,
            _held: held,
            counters,
            opened: Instant::now(),
            finished: false,
            span: None,
        };
        record.log_opened();
        record
    }

    /// With a span in a trace that was begun for it, if that is sampled.
    pub(crate) fn traced(mut self, spans: Option<&Arc<dyn Spans>>, own: Traceparent) -> Self {
        self.span = spans.and_then(|spans| Begun::of(spans, own, None));
        self
    }

    /// With a span in the trace that was carried in with it, or one of its own; if that is sampled.
    pub(crate) fn joining(mut self, spans: Option<&Arc<dyn Spans>>, carried: Option<Traceparent>) -> Self {
        self.span = spans.and_then(|spans| Begun::of(spans, begin(Some(spans), carried), carried));
        self
    }

    /// Where the relay counts.
    pub(crate) fn counters(&self) -> &Counters {
        &self.counters
    }

    /// The far end has accepted what arrived then.
    pub(crate) fn established(&self, arrived: Instant) {
        let whose = match self.details.reporter {
            Reporter::Source => &self.details.source,
            Reporter::Destination => &self.details.destination,
        };
        self.metrics.clocks.stop(self.details.reporter, whose.as_ref(), arrived);
    }

    /// Closes the books.
    pub(crate) fn finish(mut self, error: Option<&ConnectionError>) {
        // An application's reset is how that connection was meant to end.
        self.close(error.filter(|error| !error.is_reset()));
    }

    fn close(&mut self, error: Option<&ConnectionError>) {
        if std::mem::replace(&mut self.finished, true) {
            return;
        }
        let labels = match error {
            Some(error) => self.labels.flagged(error.flag()),
            None => self.labels.clone(),
        };
        self.metrics.closed.get_or_create(&labels).inc();
        if let Some(error) = error {
            self.metrics.reasons.ended(error);
        }
        if error.is_some_and(ConnectionError::is_failure) {
            self.metrics.failed.get_or_create(&labels).inc();
        }
        self.metrics.sockets.get_or_create(&labels.reporter()).dec();
        self.log_complete(error);
        if let Some(span) = self.span.take() {
            span.end(&self.details, &self.counters, self.opened, error);
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        self.close(None);
    }
}

/// Tells of a connection that never got as far as having a record.
pub(crate) fn failed(
    reporter: Reporter,
    source: SocketAddr,
    destination: SocketAddr,
    reason: &dyn fmt::Display,
) {
    warn!(
        target: ACCESS,
        {
            src.addr = %source,
            dst.addr = %destination,
            direction = direction(reporter),
            error = reason.to_string(),
        },
        "connection failed"
    );
}

fn direction(reporter: Reporter) -> &'static str {
    match reporter {
        Reporter::Source => "outbound",
        Reporter::Destination => "inbound",
    }
}

fn text(value: &str) -> Option<&str> {
    (!value.is_empty()).then_some(value)
}

/// One access-log event: the fields and their order are the log's format.
macro_rules! access {
    ($level:ident, $record:expr, $message:literal $(, $($more:tt)+)?) => {{
        let Fields { details, source, destination, source_identity, destination_identity } =
            Fields::of(&$record.details);
        $level!(
            target: ACCESS,
            {
                src.addr = %details.source_address,
                src.workload = source.and_then(|party| text(&party.pod)),
                src.namespace = source.and_then(|party| text(&party.namespace)),
                src.identity = source_identity,
                src.cluster = source.and_then(|party| text(&party.cluster)),
                dst.addr = %details.destination_address,
                dst.hbone_addr = details.hbone_address.as_ref().map(tracing::field::display),
                dst.service = details.service.as_ref().and_then(|service| text(&service.hostname)),
                dst.workload = destination.and_then(|party| text(&party.pod)),
                dst.namespace = destination.and_then(|party| text(&party.namespace)),
                dst.identity = destination_identity,
                dst.cluster = destination.and_then(|party| text(&party.cluster)),
                direction = direction(details.reporter),
                $($($more)+,)?
                transport = details.transport.told()
            },
            $message
        );
    }};
}

struct Fields<'a> {
    details: &'a Details,
    source: Option<&'a Party>,
    destination: Option<&'a Party>,
    source_identity: Option<String>,
    destination_identity: Option<String>,
}

impl<'a> Fields<'a> {
    fn of(details: &'a Details) -> Self {
        let identity = |party: Option<&Party>| {
            let proven = details.transport.identifies().then(|| party?.principal.as_ref());
            proven.flatten().map(Identity::to_string)
        };
        let (source, destination) = (details.source.as_ref(), details.destination.as_ref());
        let (source_identity, destination_identity) = (identity(source), identity(destination));
        Self { details, source, destination, source_identity, destination_identity }
    }
}

impl Record {
    fn log_opened(&self) {
        if tracing::enabled!(target: ACCESS, tracing::Level::DEBUG) {
            access!(debug, self, "connection opened");
        }
    }

    fn log_complete(&self, error: Option<&ConnectionError>) {
        let sent = self.counters.sent.bytes();
        let received = self.counters.received.bytes();
        let duration = format!("{}ms", self.opened.elapsed().as_millis());
        match error {
            Some(reason) => access!(
                error,
                self,
                "connection complete",
                bytes_sent = sent,
                bytes_recv = received,
                duration = duration,
                error = reason.to_string()
            ),
            None => access!(
                info,
                self,
                "connection complete",
                bytes_sent = sent,
                bytes_recv = received,
                duration = duration
            ),
        }
    }
}
