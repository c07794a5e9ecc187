//! The one accept loop for every kind of listener.
//!
//! Invariants: it ends only when the pod is stopped; few connections of a listener at once wait for a worker to begin with them, so
//! that a pod that opens more than can be served waits in its own queue, in the kernel, and not in front of its neighbours. A connection
//! that died in the queue is passed over; when the kernel is out of something (descriptors, memory), it waits a little longer
//! each time instead of spinning.

use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Connections of a listener with which no worker has begun yet.
const WAITING: usize = 4;

/// A connection's place among those with which no worker has begun; to be dropped when one does.
#[derive(Debug)]
pub(crate) struct Turn {
    _place: Option<OwnedSemaphorePermit>,
}

/// Accepts from `listener` until the sender of `serving` is gone, handing sockets to `deal`.
pub(crate) async fn accept(
    listener: std::net::TcpListener,
    mut serving: watch::Receiver<()>,
    mut deal: impl FnMut(std::net::TcpStream, SocketAddr, Turn),
) {
    let listener = match TcpListener::from_std(listener) {
        Ok(listener) => listener,
        Err(error) => return tracing::error!(%error, "cannot wait for connections of a pod"),
    };
    let (mut pause, waiting) = (FIRST_PAUSE, Arc::new(Semaphore::new(WAITING)));
    loop {
        let next = async {
            // Nobody closes it.
            let turn = Turn { _place: Arc::clone(&waiting).acquire_owned().await.ok() };
            next(&listener).await.map(|(stream, peer)| (stream, peer, turn))
        };
        let accepted = tokio::select! {
            // No value is ever sent: this resolves when the pod's handle is dropped.
            _ = serving.changed() => return,
            accepted = next => accepted,
        };
        match accepted {
            Ok((stream, peer, turn)) => {
                pause = FIRST_PAUSE;
                deal(stream, peer, turn);
            }
            Err(error) if is_of_connection(&error) => tracing::debug!(%error, "connection died in the queue"),
            Err(error) => {
                tracing::warn!(%error, ?pause, "cannot accept; check the limit of open files");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

/// The next connection, taken out of this thread's poller: another worker may be the one to serve it.
async fn next(listener: &TcpListener) -> io::Result<(std::net::TcpStream, SocketAddr)> {
    let (stream, peer) = listener.accept().await?;
    Ok((stream.into_std()?, peer))
}

/// Whether the fault is the one connection's: accept(2) reports pending network errors of the new socket.
fn is_of_connection(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        ErrorKind::ConnectionAborted
            | ErrorKind::ConnectionReset
            | ErrorKind::ConnectionRefused
            | ErrorKind::Interrupted
            | ErrorKind::HostUnreachable
            | ErrorKind::NetworkUnreachable
            | ErrorKind::NetworkDown
            | ErrorKind::TimedOut
    )
}
