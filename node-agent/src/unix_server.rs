//! Answers requests on a Unix socket of the run directory: one connection, one thread, a bounded number of them.
//!
//! Reading and answering block, and so may what is asked for. Only root may speak. A caller that is slow or silent holds up
//! nobody but itself, and not for longer than its time-out.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use anyhow::Context as _;
use linux::fdpass::{Connection, Listener};

/// How long a caller may take to send its request, or to take each part of the answer.
const TIMEOUT: Duration = Duration::from_secs(5);

/// What a server is for.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Purpose {
    /// Who calls, for the log.
    pub(crate) callers: &'static str,
    /// Name of its threads.
    pub(crate) thread: &'static str,
    /// Requests being answered at once; further ones wait in the kernel's queue.
    pub(crate) max_requests: usize,
}

/// Listens at `path` and answers on threads until the process ends.
pub(crate) fn start(
    path: &Path,
    purpose: Purpose,
    answer: impl Fn(&Connection) -> io::Result<()> + Send + Sync + 'static,
) -> anyhow::Result<()> {
    let listener = Listener::bind(path, 0o600).with_context(|| {
        let path = path.display();
        format!("cannot listen on {path} for {}; choose another --run-dir", purpose.callers)
    })?;
    let answer = Arc::new(answer);
    std::thread::Builder::new()
        .name(purpose.thread.into())
        .spawn(move || serve(&listener, purpose, &answer))?;
    Ok(())
}

fn serve(
    listener: &Listener,
    purpose: Purpose,
    answer: &Arc<impl Fn(&Connection) -> io::Result<()> + Send + Sync + 'static>,
) {
    let busy = Arc::new(AtomicUsize::new(0));
    loop {
        while busy.load(Ordering::Acquire) >= purpose.max_requests {
            std::thread::sleep(Duration::from_millis(10));
        }
        let connection = match listener.accept() {
            Ok(connection) => connection,
            Err(error) => {
                // Out of descriptors, most likely: they come back.
                tracing::warn!(%error, "a request of {} could not be accepted", purpose.callers);
                std::thread::sleep(Duration::from_millis(100));
                continue;
            }
        };
        busy.fetch_add(1, Ordering::AcqRel);
        let (answer, done) = (Arc::clone(answer), Busy(Arc::clone(&busy)));
        let spawned = std::thread::Builder::new().name(purpose.thread.into()).spawn(move || {
            let _done = done;
            if let Err(error) = admit(&connection, purpose, &*answer) {
                tracing::warn!(%error, "a request of {} was not answered", purpose.callers);
            }
        });
        if let Err(error) = spawned {
            tracing::warn!(%error, "no thread for a request of {}", purpose.callers);
        }
    }
}

fn admit(
    connection: &Connection,
    purpose: Purpose,
    answer: &impl Fn(&Connection) -> io::Result<()>,
) -> io::Result<()> {
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

struct Busy(Arc<AtomicUsize>);

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::AcqRel);
    }
}
