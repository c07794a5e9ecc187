//! What the server's tasks and the test share: the state, the script, the records.

use std::collections::{HashMap, VecDeque};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Result;
use tokio::sync::{broadcast, mpsc, watch};
use tonic::Status;

use crate::authority::Authority;
use crate::plane::Options;
use crate::records::{Headers, Records};
use crate::replay::Recording;
use crate::script::{Admission, Command, Door, Ending};
use crate::world::World;

/// How many commands may wait for a stream.
const COMMANDS: usize = 64;
/// How many endings may wait for a connection.
const ENDINGS: usize = 4;

pub(crate) struct Shared {
    pub(crate) options: Options,
    pub(crate) world: Mutex<World>,
    /// The revision of the world that streams have to tell of.
    pub(crate) revision: watch::Sender<u64>,
    /// Counts requests to send everything again.
    pub(crate) resend: watch::Sender<u64>,
    /// How many responses of a recording may be out.
    pub(crate) until: watch::Sender<usize>,
    pub(crate) script: Mutex<Script>,
    pub(crate) endings: broadcast::Sender<Ending>,
    pub(crate) authority: Mutex<Authority>,
    /// Whether calls for certificates wait.
    pub(crate) held: watch::Sender<bool>,
    records: Mutex<Records>,
    /// Changes with the records.
    noticed: watch::Sender<u64>,
    streams: Mutex<HashMap<u64, mpsc::Sender<Command>>>,
    next: AtomicU64,
}

/// What is done other than to serve.
#[derive(Debug, Default)]
pub(crate) struct Script {
    pub(crate) door: Door,
    /// For new streams that have nothing in the queue.
    pub(crate) admission: Admission,
    pub(crate) admissions: VecDeque<Admission>,
    /// The tokens that are good; any that is not empty, if none is named.
    pub(crate) tokens: Option<Vec<String>>,
    /// What new streams are played, in place of what is known.
    pub(crate) recording: Option<Recording>,
}

impl Shared {
    pub(crate) fn new(options: Options) -> Result<Self> {
        let authority = Authority::open(&options)?;
        Ok(Self {
            options,
            world: Mutex::default(),
            revision: watch::Sender::default(),
            resend: watch::Sender::default(),
            until: watch::Sender::default(),
            script: Mutex::default(),
            endings: broadcast::channel(ENDINGS).0,
            authority: Mutex::new(authority),
            held: watch::Sender::default(),
            records: Mutex::default(),
            noticed: watch::Sender::default(),
            streams: Mutex::default(),
            next: AtomicU64::new(0),
        })
    }

    /// Reads the records.
    pub(crate) fn records(&self) -> MutexGuard<'_, Records> {
        lock(&self.records)
    }

    /// Told when the records change.
    pub(crate) fn noticed(&self) -> watch::Receiver<u64> {
        self.noticed.subscribe()
    }

    /// Changes the records, unless nothing is recorded.
    pub(crate) fn note(&self, change: impl FnOnce(&mut Records)) {
        if self.options.record {
            change(&mut self.records());
            self.noticed.send_modify(|count| *count += 1);
        }
    }

    /// A new stream: its number and what it will be told.
    pub(crate) fn begin(&self, headers: Headers) -> (u64, mpsc::Receiver<Command>) {
        let id = self.next.fetch_add(1, Ordering::Relaxed);
        let (sender, receiver) = mpsc::channel(COMMANDS);
        lock(&self.streams).insert(id, sender);
        self.note(|records| records.begin(id, headers));
        (id, receiver)
    }

    pub(crate) fn end(&self, id: u64, status: Option<&Status>) {
        lock(&self.streams).remove(&id);
        self.note(|records| {
            if let Some(stream) = records.stream(id) {
                stream.end(status);
            }
        });
    }

    /// What becomes of a stream that is opened now.
    pub(crate) fn admission(&self) -> Admission {
        let mut script = lock(&self.script);
        script.admissions.pop_front().unwrap_or_else(|| script.admission.clone())
    }

    /// Those that can be told something.
    pub(crate) fn live(&self) -> Vec<mpsc::Sender<Command>> {
        lock(&self.streams).values().cloned().collect()
    }

    /// Whether a token is good.
    pub(crate) fn authenticate(&self, headers: &Headers, refusal: &str) -> Result<(), Status> {
        let token = headers.get("authorization").and_then(|value| value.strip_prefix("Bearer "));
        let good = match (&lock(&self.script).tokens, token) {
            (Some(tokens), Some(token)) => tokens.iter().any(|good| good == token),
            (None, Some(token)) => !token.is_empty(),
            (_, None) => false,
        };
        if good { Ok(()) } else { Err(Status::unauthenticated(refusal)) }
    }
}

/// The lock, whatever became of whoever held it: no state here is left half changed.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
