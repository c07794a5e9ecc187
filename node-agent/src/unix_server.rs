//! Answers requests on a Unix socket of the run directory: one connection, one thread, a bounded number of them.
//!
//! Reading and answering block, and so may what is asked for. Only root may speak. A caller that is slow or silent holds up
//! nobody but itself, and not for longer than its time-out. A server that is paused leaves its callers in the kernel's queue,
//! for itself or for another agent that holds the same socket.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context as _;
use linux::fdpass::{Connection, Listener};
use tokio::net::UnixListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::task::JoinHandle;

/// How long a caller may take to send its request, or to take each part of the answer.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long nothing is accepted after the kernel could not give a connection.
const PAUSE: Duration = Duration::from_millis(100);

/// What a server is for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Purpose {
    /// Who calls, for the log.
    pub(crate) callers: &'static str,
    /// Name of its threads.
    pub(crate) thread: &'static str,
    /// Requests being answered at once; further ones wait in the kernel's queue.
    pub(crate) max_requests: u32,
}

type Answer = dyn Fn(&Connection) -> io::Result<()> + Send + Sync;

/// A listening server. Dropping it ends it.
pub(crate) struct Server {
    purpose: Purpose,
    listener: Mutex<Listener>,
    answer: Arc<Answer>,
    /// One permit a request that may be answered at once.
    idle: Arc<Semaphore>,
    accepting: Mutex<Option<JoinHandle<()>>>,
}

/// Binds the socket at `path`, or takes over the one that another agent has bound there. One that ended by itself has taken its file along;
/// then nobody can reach its socket any more.
pub(crate) fn listen(path: &Path, callers: &str, inherited: Option<OwnedFd>) -> anyhow::Result<Listener> {
    let listener = match inherited {
        Some(descriptor) if path.exists() => Listener::inherit(descriptor, path),
        _ => Listener::bind(path, 0o600),
    };
    let listener = listener.with_context(|| {
        format!("cannot listen on {} for {callers}; choose another --run-dir", path.display())
    })?;
    listener.set_nonblocking(true)?;
    Ok(listener)
}

impl Server {
    /// Answers on threads until it is paused or dropped. Must be called on a runtime.
    pub(crate) fn start(
        listener: Listener,
        purpose: Purpose,
        answer: impl Fn(&Connection) -> io::Result<()> + Send + Sync + 'static,
    ) -> io::Result<Self> {
        let server = Self {
            purpose,
            listener: Mutex::new(listener),
            answer: Arc::new(answer),
            idle: Arc::new(Semaphore::new(purpose.max_requests as usize)),
            accepting: Mutex::default(),
        };
        server.resume()?;
        Ok(server)
    }

    /// Another descriptor of its socket, for another agent.
    pub(crate) fn share(&self) -> io::Result<OwnedFd> {
        lock(&self.listener).share()
    }

    /// Accepts nothing more, and waits until all that was accepted is answered.
    pub(crate) async fn pause(&self) {
        if let Some(accepting) = lock(&self.accepting).take() {
            accepting.abort();
        }
        // The semaphore is never closed, so this fails only by waiting for ever, which the requests' time-outs prevent.
        let _all = self.idle.acquire_many(self.purpose.max_requests).await;
    }

    /// Accepts again.
    pub(crate) fn resume(&self) -> io::Result<()> {
        let listener = UnixListener::from_std(self.share()?.into())?;
        let serving = serve(listener, self.purpose, Arc::clone(&self.answer), Arc::clone(&self.idle));
        *lock(&self.accepting) = Some(tokio::spawn(serving));
        Ok(())
    }

    /// Ends it and leaves its file to another agent.
    pub(crate) fn leave(&self) {
        if let Some(accepting) = lock(&self.accepting).take() {
            accepting.abort();
        }
        lock(&self.listener).leave();
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(accepting) = lock(&self.accepting).take() {
            accepting.abort();
        }
    }
}

async fn serve(listener: UnixListener, purpose: Purpose, answer: Arc<Answer>, idle: Arc<Semaphore>) {
    while let Ok(permit) = Arc::clone(&idle).acquire_owned().await {
        let accepted = listener.accept().await.and_then(|(stream, _)| stream.into_std());
        match accepted.and_then(|stream| Connection::accepted(stream.into())) {
            Ok(connection) => spawn(connection, purpose, Arc::clone(&answer), permit),
            Err(error) => {
                // Out of descriptors, most likely: they come back.
                tracing::warn!(%error, "a request of {} could not be accepted", purpose.callers);
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

fn spawn(connection: Connection, purpose: Purpose, answer: Arc<Answer>, permit: OwnedSemaphorePermit) {
    let spawned = std::thread::Builder::new().name(purpose.thread.into()).spawn(move || {
        let _permit = permit;
        if let Err(error) = admit(&connection, purpose, &*answer) {
            tracing::warn!(%error, "a request of {} was not answered", purpose.callers);
        }
    });
    if let Err(error) = spawned {
        tracing::warn!(%error, "no thread for a request of {}", purpose.callers);
    }
}

fn admit(connection: &Connection, purpose: Purpose, answer: &Answer) -> io::Result<()> {
    connection.set_timeout(TIMEOUT)?;
    let peer = connection.peer()?;
    if peer.uid() != 0 {
        let (pid, uid) = (peer.pid(), peer.uid());
        tracing::warn!(
            pid,
            uid,
            "a process that is not root spoke in the place of {}, refused",
            purpose.callers
        );
        return Ok(());
    }
    answer(connection)
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
