//! The old agent's side: what it has to give, and the giving.
//!
//! While a successor is being given to, nothing is changed here; whatever goes wrong before the last word, everything goes on
//! as before. After it, this process serves what it has accepted and touches nothing else.

use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use linux::fdpass::{Connection, Listener};
use linux::pidfd::Process;
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::time::timeout;

use super::protocol::{self, ADMIN, Answer, Ask, CNI, HANDOVER, HandoverError, LOCK, Named, PROCESS, Taken};
use crate::enrollment::Enroller;
use crate::lock::InstanceLock;
use crate::unix_server::{Purpose, Server};

/// How long what is under way (an enrolment, a repair) may take to end.
const QUIET: Duration = Duration::from_secs(30);
/// How long the successor may take to capture and prove all pods.
const SUCCESSOR: Duration = Duration::from_secs(120);

/// What an agent holds besides its pods.
pub(crate) struct Holdings {
    /// The place itself.
    pub(crate) lock: InstanceLock,
    /// Answers the CNI plugin.
    pub(crate) cni: Server,
    /// Answers the command line.
    pub(crate) admin: Server,
    /// The ports of the metrics, the readiness probe and the admin interface.
    pub(crate) ports: Vec<Named>,
}

/// All that an agent can hand over, once.
pub(crate) struct Estate {
    bpffs: PathBuf,
    enroller: Arc<Enroller>,
    holdings: tokio::sync::Mutex<Option<Holdings>>,
    server: Mutex<Option<Server>>,
    given: Notify,
}

impl Estate {
    /// Of the agent that pins at `bpffs`; it listens for a successor from now on.
    pub(crate) fn open(
        listener: Listener,
        bpffs: PathBuf,
        enroller: Arc<Enroller>,
        holdings: Holdings,
    ) -> io::Result<Arc<Self>> {
        let estate = Arc::new(Self {
            bpffs,
            enroller,
            holdings: tokio::sync::Mutex::new(Some(holdings)),
            server: Mutex::default(),
            given: Notify::new(),
        });
        let purpose = Purpose { callers: "the next agent", thread: "handover", max_requests: 2 };
        let (heirs, runtime) = (Arc::downgrade(&estate), Handle::current());
        let server = Server::start(listener, purpose, move |connection| match heirs.upgrade() {
            Some(estate) => Ok(runtime.block_on(estate.answer(connection))?),
            None => Ok(()),
        })?;
        *estate.server.lock().unwrap_or_else(PoisonError::into_inner) = Some(server);
        Ok(estate)
    }

    /// Waits until everything was given to a successor.
    pub(crate) async fn given(&self) {
        self.given.notified().await;
    }

    /// Keeps everything for the end: from now on nobody can take over what is being removed. None if a successor has it already.
    pub(crate) async fn withhold(&self) -> Option<Holdings> {
        // A successor that is being given to has its limits.
        self.holdings.lock().await.take()
    }

    async fn answer(&self, connection: &Connection) -> Result<(), HandoverError> {
        let (ask, _) = protocol::receive::<Ask>(connection)?;
        let refuse = |why: String| {
            tracing::warn!(why, "another agent asked to take over, refused");
            protocol::send(connection, &Answer::Refused { why }, &[])
        };
        if ask.bpffs != self.bpffs {
            let (own, other) = (self.bpffs.display(), ask.bpffs.display());
            return refuse(format!("it pins in {own}, the one who asks in {other}: two installations"));
        }
        let Ok(mut place) = self.holdings.try_lock() else {
            return refuse("another agent is taking over just now".to_owned());
        };
        let Some(holdings) = place.as_ref() else {
            return refuse(
                "another agent has taken over already, or this one ends and removes what it has captured"
                    .to_owned(),
            );
        };
        let release = ask.release;
        tracing::info!(release, "another agent asks to take over");
        let outcome = self.give(connection, holdings).await;
        match outcome {
            Ok(pods) => {
                tracing::info!(
                    release,
                    pods,
                    "handed over; this agent serves what it has accepted, and ends with it"
                );
                holdings.cni.leave();
                holdings.admin.leave();
                if let Some(server) = self.server.lock().unwrap_or_else(PoisonError::into_inner).as_ref() {
                    server.leave();
                }
                *place = None;
                self.given.notify_one();
                Ok(())
            }
            Err(error) => {
                self.enroller.go_on();
                holdings.cni.resume()?;
                holdings.admin.resume()?;
                tracing::warn!(%error, "not handed over, this agent goes on");
                Err(error)
            }
        }
    }

    /// Gives everything and waits for the successor's word; returns how many pods it has taken.
    async fn give(&self, connection: &Connection, holdings: &Holdings) -> Result<usize, HandoverError> {
        let late = |_| HandoverError::Refused("what is under way does not come to an end".to_owned());
        let quiet = timeout(QUIET, async {
            holdings.cni.pause().await;
            holdings.admin.pause().await;
            self.enroller.freeze().await
        });
        let frozen = match quiet.await {
            Ok(frozen) => frozen,
            Err(elapsed) => {
                let error = late(elapsed);
                protocol::send(connection, &Answer::Refused { why: error.to_string() }, &[])?;
                return Err(error);
            }
        };
        let sockets = self.node_sockets(holdings)?;
        let release = env!("CARGO_PKG_VERSION").to_owned();
        protocol::send(connection, &Answer::Node { release, sockets: protocol::names(&sockets) }, &sockets)?;
        for (cookie, sockets) in frozen.sockets().await? {
            let pod = Answer::Pod { cookie, sockets: protocol::names(&sockets) };
            protocol::send(connection, &pod, &sockets)?;
        }
        protocol::send(connection, &Answer::End, &[])?;
        connection.set_timeout(SUCCESSOR)?;
        let (taken, _) = protocol::receive::<Taken>(connection)?;
        protocol::send(connection, &Answer::Yours, &[])?;
        frozen.surrender().await;
        Ok(taken.pods)
    }

    fn node_sockets(&self, holdings: &Holdings) -> io::Result<Vec<Named>> {
        let own = self.server.lock().unwrap_or_else(PoisonError::into_inner);
        let own = own.as_ref().map(Server::share).transpose()?;
        let copy = |socket: &OwnedFd| socket.as_fd().try_clone_to_owned();
        let mut sockets = vec![
            (LOCK.to_owned(), holdings.lock.share()?),
            (CNI.to_owned(), holdings.cni.share()?),
            (ADMIN.to_owned(), holdings.admin.share()?),
        ];
        for (name, port) in &holdings.ports {
            sockets.push((name.clone(), copy(port)?));
        }
        sockets.extend(own.map(|socket| (HANDOVER.to_owned(), socket)));
        match Process::of(std::process::id()) {
            Ok(process) => sockets.push((PROCESS.to_owned(), process.into())),
            Err(error) => {
                tracing::warn!(%error, "the next agent will not know it if this one ends meanwhile")
            }
        }
        Ok(sockets)
    }
}
