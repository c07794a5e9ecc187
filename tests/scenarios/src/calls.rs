//! A client that goes on calling: on a new connection each time, and on one that it keeps. What fails is remembered with what it was told.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};

use anyhow::Result;
use harness::{Attempt, Pod, eventually};
use interop_tests::LIMIT;

/// Paths of the calls, by which they are known on the wire.
pub(crate) const NEW: &str = "/on-a-connection-of-its-own";
pub(crate) const KEPT: &str = "/on-one-that-is-kept";

/// A client and what came of its calls.
pub(crate) struct Calls<'a> {
    client: &'a Pod,
    targets: [SocketAddr; 2],
    made: AtomicUsize,
    kept: AtomicUsize,
    failures: Mutex<Vec<String>>,
}

impl<'a> Calls<'a> {
    /// Of this client, to both addresses of a server in turn.
    pub(crate) fn new(client: &'a Pod, targets: [SocketAddr; 2]) -> Self {
        let (made, kept, failures) = (AtomicUsize::new(0), AtomicUsize::new(0), Mutex::default());
        Self { client, targets, made, kept, failures }
    }

    /// Makes one after the other, each on a connection of its own.
    pub(crate) fn make(&self, over: &AtomicBool) -> Result<()> {
        for to in self.targets.into_iter().cycle() {
            if over.load(Ordering::Acquire) {
                break;
            }
            match self.client.attempt(to, NEW)? {
                Attempt::Answered(reply) if reply.status == 200 => {}
                other => self.failed(format!("{to}: {other:?}")),
            }
            self.made.fetch_add(1, Ordering::AcqRel);
        }
        Ok(())
    }

    /// Makes one after the other on the same connection, once for each call on a new one.
    pub(crate) fn keep(&self, over: &AtomicBool) -> Result<()> {
        let [to, _] = self.targets;
        let mut http = self.client.open_http(to)?;
        while !over.load(Ordering::Acquire) {
            match http.get(KEPT) {
                Ok(reply) if reply.status == 200 => {}
                other => {
                    self.failed(format!("kept: {other:?}"));
                    return Ok(());
                }
            }
            let done = self.kept.fetch_add(1, Ordering::AcqRel);
            let further = || (self.made() > done || over.load(Ordering::Acquire)).then_some(());
            eventually("the next call", LIMIT, further)?;
        }
        Ok(())
    }

    fn failed(&self, what: String) {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).push(what);
    }

    /// How many were made on connections of their own.
    pub(crate) fn made(&self) -> usize {
        self.made.load(Ordering::Acquire)
    }

    /// How many were made on the one that is kept.
    pub(crate) fn kept(&self) -> usize {
        self.kept.load(Ordering::Acquire)
    }

    /// What failed.
    pub(crate) fn failures(&self) -> Vec<String> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until so many more were made, whatever came of them.
    pub(crate) fn answered(&self, more: usize) -> Result<()> {
        let goal = self.made() + more;
        eventually(&format!("{more} calls more"), LIMIT, || (self.made() >= goal).then_some(()))
    }
}
