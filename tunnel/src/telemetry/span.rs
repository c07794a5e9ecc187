//! Spans of connections: what a trace shows of each, on both nodes.
//!
//! Who collects them is the caller's ([`Spans`]); here they are begun, handed to the peer's agent in its `traceparent`, and
//! told when the connection is over. Invariant: without a collector nothing is made and nothing of what is sent changes; with
//! one, a connection that is not sampled costs a decision and no more. A span is told once, by the record of its connection.

use std::fmt;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use mesh::Identity;

use super::labels::Reporter;
use super::party::Party;
use super::record::Details;
use crate::connections::Direction;
use crate::error::{ConnectionError, Flag};
use crate::hbone::Traceparent;
use crate::relay::Counters;

/// Who collects spans. Asked by the threads that carry connections: nothing here may wait.
pub trait Spans: fmt::Debug + Send + Sync {
    /// Whether a connection of this trace is to have a span; `parent` is what was decided where the trace comes from.
    fn samples(&self, trace: u128, parent: Option<bool>) -> bool;
    /// Takes the span of a connection that is over, or loses it.
    fn take(&self, span: Span);
}

/// A connection that is over, as one agent saw it.
#[derive(Debug, Clone)]
pub struct Span {
    /// The trace; never 0.
    pub trace: u128,
    /// The span; never 0.
    pub id: u64,
    /// The span that was carried in with the connection.
    pub parent: Option<u64>,
    /// Seen from the pod.
    pub direction: Direction,
    /// When the connection was taken on.
    pub started: SystemTime,
    /// When it was over.
    pub ended: SystemTime,
    /// The client.
    pub source: Peer,
    /// The server: the address is the next hop's, or the one that was arrived at.
    pub destination: Peer,
    /// What was asked for inside the tunnel.
    pub hbone_address: Option<String>,
    /// The service it was addressed to; empty if there is none.
    pub service: Arc<str>,
    /// How it was carried.
    pub carriage: Carriage,
    /// Bytes that this agent passed on towards its peer, as the access log counts them.
    pub bytes_sent: u64,
    /// Bytes that came from there.
    pub bytes_received: u64,
    /// The response flag of the metrics; `-` for none.
    pub flag: &'static str,
    /// Why it ended, unless in good order.
    pub error: Option<String>,
}

/// One end of a connection. What is not known is empty.
#[derive(Debug, Clone)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// The pod.
    pub pod: Arc<str>,
    /// Its namespace.
    pub namespace: Arc<str>,
    /// Its cluster.
    pub cluster: Arc<str>,
    /// Its identity where that is proven.
    pub identity: Option<Identity>,
}

/// How a connection is carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Carriage {
    /// As it is.
    Plain,
    /// In a tunnel.
    Tunnel,
    /// As it is between two pods of this agent.
    Direct,
}

/// A span that is sampled, until its connection is over.
#[derive(Debug)]
pub(super) struct Begun {
    own: Traceparent,
    parent: Option<u64>,
    started: SystemTime,
    to: Arc<dyn Spans>,
}

/// Begins a trace, or goes on with the one that a connection carries. Without a collector it is never sampled.
pub(crate) fn begin(spans: Option<&Arc<dyn Spans>>, carried: Option<Traceparent>) -> Traceparent {
    let mut own = Traceparent::random();
    let Some(spans) = spans else { return own };
    if let Some(carried) = carried {
        own.trace = carried.trace;
    }
    own.sampled = spans.samples(own.trace, carried.map(|carried| carried.sampled));
    own
}

impl Begun {
    /// The span of a connection, if it is sampled.
    pub(super) fn of(
        to: &Arc<dyn Spans>,
        own: Traceparent,
        carried: Option<Traceparent>,
    ) -> Option<Box<Self>> {
        let parent = carried.map(|carried| carried.span);
        let begun = || Self { own, parent, started: SystemTime::now(), to: Arc::clone(to) };
        own.sampled.then(|| Box::new(begun()))
    }

    /// Tells it.
    pub(super) fn end(
        self,
        details: &Details,
        counters: &Counters,
        opened: Instant,
        error: Option<&ConnectionError>,
    ) {
        let identifies = details.transport.identifies();
        let peer = |address, party: Option<&Party>| Peer::of(address, party, identifies);
        let service = details.service.as_ref().map(|service| Arc::clone(&service.hostname));
        self.to.take(Span {
            trace: self.own.trace,
            id: self.own.span,
            parent: self.parent,
            direction: match details.reporter {
                Reporter::Source => Direction::Outbound,
                Reporter::Destination => Direction::Inbound,
            },
            started: self.started,
            // However the clock was set meanwhile.
            ended: self.started + opened.elapsed(),
            source: peer(details.source_address, details.source.as_ref()),
            destination: peer(details.destination_address, details.destination.as_ref()),
            hbone_address: details.hbone_address.clone(),
            service: service.unwrap_or_default(),
            carriage: details.transport.into(),
            bytes_sent: counters.sent.bytes(),
            bytes_received: counters.received.bytes(),
            flag: error.map_or(Flag::None, ConnectionError::flag).label(),
            error: error.map(ToString::to_string),
        });
    }
}

impl Peer {
    fn of(address: SocketAddr, party: Option<&Party>, identifies: bool) -> Self {
        let party = party.cloned().unwrap_or_default();
        Self {
            address,
            pod: party.pod,
            namespace: party.namespace,
            cluster: party.cluster,
            identity: party.principal.filter(|_| identifies),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::super::metrics::Metrics;
    use super::super::record::Record;
    use super::super::tests::tunnelled;
    use super::*;

    /// Takes what has a sampled parent, and of the others what it is told to.
    #[derive(Debug, Default)]
    struct Kept {
        takes_all: bool,
        spans: Mutex<Vec<Span>>,
    }

    impl Spans for Kept {
        fn samples(&self, _: u128, parent: Option<bool>) -> bool {
            parent.unwrap_or(self.takes_all)
        }

        fn take(&self, span: Span) {
            self.spans.lock().unwrap().push(span);
        }
    }

    fn carried(flags: &str) -> Option<Traceparent> {
        format!("00-a921dbcab71f052c4ad10ec836302994-1c57652215e9d6e3-{flags}").parse().ok()
    }

    #[test]
    fn a_trace_that_is_carried_goes_on_and_one_that_is_not_begins() {
        for (flags, takes_all, sampled) in
            [(None, true, true), (None, false, false), (Some("00"), true, false), (Some("01"), false, true)]
        {
            let kept = Arc::new(Kept { takes_all, ..Kept::default() });
            let spans: Arc<dyn Spans> = kept.clone();
            let parent = flags.and_then(carried);
            let record = Record::open(&Metrics::default(), tunnelled()).joining(Some(&spans), parent);
            record.finish(Some(&ConnectionError::PolicyChange));
            let told = kept.spans.lock().unwrap();
            assert_eq!(told.len(), usize::from(sampled), "{flags:?}");
            let Some(span) = told.first() else { continue };
            assert_eq!(span.parent, parent.map(|parent| parent.span));
            assert!(parent.is_none_or(|parent| parent.trace == span.trace && parent.span != span.id));
            assert_eq!((span.flag, span.error.is_some()), ("DENY", true));
            assert!(span.started <= span.ended);
        }
    }

    #[test]
    fn what_is_carried_on_says_whether_it_is_sampled_and_never_is_without_a_collector() {
        let spans: Arc<dyn Spans> = Arc::new(Kept { takes_all: true, ..Kept::default() });
        assert!(begin(Some(&spans), None).to_string().ends_with("-01"));
        assert!(begin(None, None).to_string().ends_with("-00"));
        assert!(begin(None, carried("01")).to_string().ends_with("-00"));
    }

    #[test]
    fn one_that_is_dropped_unfinished_is_told_all_the_same_and_once() {
        let kept = Arc::new(Kept { takes_all: true, ..Kept::default() });
        let spans: Arc<dyn Spans> = kept.clone();
        let own = begin(Some(&spans), None);
        drop(Record::open(&Metrics::default(), tunnelled()).traced(Some(&spans), own));
        let told: Vec<_> = kept.spans.lock().unwrap().iter().map(|span| (span.trace, span.id)).collect();
        assert_eq!(told, [(own.trace, own.span)]);
    }
}
