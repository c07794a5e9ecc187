//! The new agent's side: how it comes by the installation's place.
//!
//! Nobody there: it takes the place. Another agent there: with `--take-over` it asks that one to hand over, otherwise it
//! says who is there and waits until the place is free. It never takes what it was not given.
//!
//! An agent that ends before it has said its last word says nothing more, so what it had given is this one's, as if it had. That it has
//! ended is not guessed by its silence: it gives a descriptor of its process, and the kernel says when that is gone. Nothing
//! begins anew then, neither this process nor what it has made so far: the sockets that it was given are open, so nobody is refused
//! meanwhile, and as nobody else may change anything, that is no other start than one after a crash, with the pods served sooner.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::time::Duration;

use linux::fdpass::Connection;
use linux::pidfd::Process;
use tokio::time::Instant;

use super::protocol::{self, Answer, Ask, HANDOVER, HandoverError, LOCK, Named, PROCESS, Taken};
use crate::lock::{self, InstanceLock};

/// How long the other agent may take to bring what is under way to an end, and for each message.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long an agent that has broken off may take to end, if that is why.
const ENDING: Duration = Duration::from_secs(10);
/// How often it is looked whether the place is free, and whether an agent that hands over lives.
const PERIOD: Duration = Duration::from_millis(200);
/// How often a waiting agent says so, and asks again if it is to ask.
const REMINDER: Duration = Duration::from_secs(10);

/// How the agent came by its place.
pub(crate) enum Claim {
    /// Nobody was there.
    Free(InstanceLock),
    /// Another agent hands over.
    Given(Inheritance),
}

/// What another agent hands over, which still holds it too until [`Inheritance::confirm`].
pub(crate) struct Inheritance {
    connection: Connection,
    lock: InstanceLock,
    /// The other agent's; none if it is of a release that does not give it.
    process: Option<Process>,
    node: HashMap<String, OwnedFd>,
    pods: HashMap<u64, Vec<Named>>,
}

impl Claim {
    /// Waits for the place in `run_dir`, or asks for it.
    pub(crate) async fn make(run_dir: &Path, bpffs: &Path, take_over: bool) -> anyhow::Result<Self> {
        let mut due = Instant::now();
        loop {
            let holder = match InstanceLock::try_take(run_dir)? {
                lock::Taken::Ours(lock) => return Ok(Self::Free(lock)),
                lock::Taken::Held(holder) => holder,
            };
            if Instant::now() >= due {
                due = Instant::now() + REMINDER;
                if take_over {
                    let (run_dir, bpffs) = (run_dir.to_owned(), bpffs.to_owned());
                    match tokio::task::spawn_blocking(move || Inheritance::ask(&run_dir, &bpffs)).await? {
                        Ok(inheritance) => return Ok(Self::Given(inheritance)),
                        Err(error) => {
                            tracing::warn!(holder, %error, "not taken over; waiting for the other agent to end")
                        }
                    }
                } else {
                    tracing::warn!(
                        holder,
                        run_dir = %run_dir.display(),
                        "another agent runs here; waiting for it to end (--take-over asks it to hand over; another \
                         installation needs its own --run-dir and --bpffs)"
                    );
                }
            }
            tokio::time::sleep(PERIOD).await;
        }
    }

    /// Waits until the agent that hands over has ended; for ever if there is none, or its end cannot be known.
    pub(crate) async fn bereaved(&self) {
        let Self::Given(Inheritance { process: Some(process), .. }) = self else {
            return std::future::pending().await;
        };
        while !matches!(process.has_ended_within(Duration::ZERO), Ok(true)) {
            tokio::time::sleep(PERIOD).await;
        }
    }

    /// A socket of the agent before this one.
    pub(crate) fn socket(&mut self, name: &str) -> Option<OwnedFd> {
        match self {
            Self::Free(_) => None,
            Self::Given(inheritance) => inheritance.node.remove(name),
        }
    }

    /// The sockets of the pods of the agent before this one, by the cookies of their namespaces.
    pub(crate) fn pods(&mut self) -> HashMap<u64, Vec<Named>> {
        match self {
            Self::Free(_) => HashMap::new(),
            Self::Given(inheritance) => std::mem::take(&mut inheritance.pods),
        }
    }

    /// Makes the place this agent's alone; `pods` is how many it has taken over. Blocks until the other agent has answered, or has
    /// ended.
    pub(crate) fn confirm(self, pods: usize) -> Result<InstanceLock, HandoverError> {
        match self {
            Self::Free(lock) => Ok(lock),
            Self::Given(inheritance) => inheritance.confirm(pods),
        }
    }
}

impl Inheritance {
    fn ask(run_dir: &Path, bpffs: &Path) -> Result<Self, HandoverError> {
        let connection = Connection::connect(&run_dir.join(format!("{HANDOVER}.sock")), PATIENCE)?;
        let ask = Ask { bpffs: bpffs.to_owned(), release: env!("CARGO_PKG_VERSION").to_owned() };
        protocol::send(&connection, &ask, &[])?;
        let (answer, sockets) = protocol::receive::<Answer>(&connection)?;
        let (release, names) = match answer {
            Answer::Node { release, sockets } => (release, sockets),
            Answer::Refused { why } => return Err(HandoverError::Refused(why)),
            other => return Err(out_of_turn(&other)),
        };
        let mut node: HashMap<String, OwnedFd> = protocol::named(names, sockets)?.into_iter().collect();
        let lock = node.remove(LOCK).ok_or(HandoverError::Missing("lock"))?;
        let process = node.remove(PROCESS).map(Process::received).transpose()?;
        let mut pods = HashMap::new();
        loop {
            match protocol::receive::<Answer>(&connection)? {
                (Answer::Pod { cookie, sockets: names }, sockets) => {
                    pods.insert(cookie, protocol::named(names, sockets)?);
                }
                (Answer::End, _) => break,
                (other, _) => return Err(out_of_turn(&other)),
            }
        }
        tracing::info!(release, pods = pods.len(), "the agent before this one hands over");
        Ok(Self { connection, lock: InstanceLock::inherit(lock), process, node, pods })
    }

    fn confirm(mut self, pods: usize) -> Result<InstanceLock, HandoverError> {
        if let Err(error) = self.agree(pods) {
            if !self.holder_has_ended(&error) {
                return Err(error);
            }
            tracing::warn!(
                pods,
                "the agent before this one has ended before its last word; what it had given is this one's"
            );
        }
        // Only a message to whoever comes next: the lock itself is held.
        if let Err(error) = self.lock.sign() {
            tracing::warn!(%error, "the lock file still names the agent before this one");
        }
        Ok(self.lock)
    }

    fn agree(&self, pods: usize) -> Result<(), HandoverError> {
        protocol::send(&self.connection, &Taken { pods }, &[])?;
        match protocol::receive::<Answer>(&self.connection)? {
            (Answer::Yours, _) => Ok(()),
            (other, _) => Err(out_of_turn(&other)),
        }
    }

    /// Whether the other agent is gone, after it has left the conversation. One that lives on has given up on this one.
    fn holder_has_ended(&self, after: &HandoverError) -> bool {
        let Some(process) = &self.process else { return false };
        if !matches!(after, HandoverError::Lost(_) | HandoverError::BrokenOff) {
            return false;
        }
        process.has_ended_within(ENDING).unwrap_or_else(|error| {
            tracing::warn!(%error, "it is not known whether the agent before this one lives");
            false
        })
    }
}

fn out_of_turn(answer: &Answer) -> HandoverError {
    HandoverError::OutOfTurn(match answer {
        Answer::Refused { .. } => "refused",
        Answer::Node { .. } => "node",
        Answer::Pod { .. } => "pod",
        Answer::End => "end",
        Answer::Yours => "yours",
    })
}

impl From<HandoverError> for io::Error {
    fn from(error: HandoverError) -> Self {
        match error {
            HandoverError::Lost(source) => source,
            other => Self::other(other),
        }
    }
}
