//! What clients did: connections, streams with their headers and requests, calls for certificates.
//!
//! Invariant: bounded; the oldest of a long run are forgotten, and so is what a test does not look at when the
//! server is told to record nothing.

use std::collections::{BTreeMap, VecDeque};

use http::HeaderMap;
use tonic::{Code, Status};

use crate::wire::ca::CertificateRequest;
use crate::wire::discovery::{ADDRESS, AUTHORIZATION, Request};

/// How many streams, calls, and requests of a stream are kept.
const KEPT: usize = 4096;

/// Headers of a call, as text.
pub type Headers = BTreeMap<String, String>;

/// All that is recorded.
#[derive(Clone, Debug, Default)]
pub struct Records {
    /// How many TCP connections came.
    pub connections: u64,
    /// The streams, oldest first.
    pub streams: VecDeque<Stream>,
    /// The calls for certificates, oldest first.
    pub calls: VecDeque<Call>,
    /// How many calls are under way.
    pub under_way: usize,
    /// The most that ever were at once.
    pub most_under_way: usize,
}

/// A stream of a client.
#[derive(Clone, Debug, Default)]
pub struct Stream {
    /// Its number, from 0.
    pub id: u64,
    /// What it was opened with.
    pub headers: Headers,
    /// What the client sent, oldest first.
    pub requests: Vec<Request>,
    /// What was sent to it: type and nonce, oldest first.
    pub sent: Vec<(String, String)>,
    /// Whether it is over.
    pub ended: bool,
    /// What it was ended with by the server, if with something.
    pub status: Option<(Code, String)>,
}

/// A call for a certificate.
#[derive(Clone, Debug, Default)]
pub struct Call {
    /// What it came with.
    pub headers: Headers,
    /// What was asked.
    pub request: CertificateRequest,
}

impl Records {
    /// The last stream.
    pub fn last(&self) -> Option<&Stream> {
        self.streams.back()
    }

    pub(crate) fn begin(&mut self, id: u64, headers: Headers) {
        trim(&mut self.streams);
        self.streams.push_back(Stream { id, headers, ..Stream::default() });
    }

    pub(crate) fn call(&mut self, call: Call) {
        trim(&mut self.calls);
        self.calls.push_back(call);
        self.under_way += 1;
        self.most_under_way = self.most_under_way.max(self.under_way);
    }

    pub(crate) fn stream(&mut self, id: u64) -> Option<&mut Stream> {
        self.streams.iter_mut().rev().find(|stream| stream.id == id)
    }
}

impl Stream {
    /// What was sent for a type.
    pub fn of<'a>(&'a self, type_url: &'a str) -> impl Iterator<Item = &'a Request> + 'a {
        self.requests.iter().filter(move |request| request.type_url == type_url)
    }

    /// The refusals that the client sent.
    pub fn nacks(&self) -> impl Iterator<Item = &Request> {
        self.requests.iter().filter(|request| request.error_detail.is_some())
    }

    /// Whether the client accepted the last thing that was sent to it for a type.
    pub fn acknowledged(&self, type_url: &str) -> bool {
        let last = self.sent.iter().rev().find(|(of, _)| of == type_url);
        last.is_some_and(|(_, nonce)| {
            self.of(type_url)
                .any(|request| request.response_nonce == *nonce && request.error_detail.is_none())
        })
    }

    /// Whether it is open and the client accepted the last thing of both types.
    pub fn is_synced(&self) -> bool {
        !self.ended && self.acknowledged(ADDRESS) && self.acknowledged(AUTHORIZATION)
    }

    /// Whether so many responses were sent and the client accepted each.
    pub fn has_accepted(&self, responses: usize) -> bool {
        let accepted = |nonce: &String| {
            let answers = self.requests.iter().filter(|request| request.response_nonce == *nonce);
            answers.clone().count() > 0 && answers.clone().all(|answer| answer.error_detail.is_none())
        };
        self.sent.len() == responses && self.sent.iter().all(|(_, nonce)| accepted(nonce))
    }

    pub(crate) fn request(&mut self, request: Request) {
        if self.requests.len() < KEPT {
            self.requests.push(request);
        }
    }

    pub(crate) fn end(&mut self, status: Option<&Status>) {
        self.ended = true;
        self.status = status.map(|status| (status.code(), status.message().to_owned()));
    }

    pub(crate) fn answer(&mut self, type_url: &str, nonce: &str) {
        if self.sent.len() >= KEPT {
            self.sent.remove(0);
        }
        self.sent.push((type_url.to_owned(), nonce.to_owned()));
    }
}

/// Headers as text; what is not text is written as bytes are in debugging.
pub(crate) fn headers(map: &HeaderMap) -> Headers {
    let text = |value: &http::HeaderValue| {
        value.to_str().map_or_else(|_| format!("{:?}", value.as_bytes()), str::to_owned)
    };
    map.iter().map(|(name, value)| (name.to_string(), text(value))).collect()
}

fn trim<T>(queue: &mut VecDeque<T>) {
    if queue.len() >= KEPT {
        queue.pop_front();
    }
}
