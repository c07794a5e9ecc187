//! The one accept loop for every kind of listener.
//!
//! Invariants: it ends only when another thread is to accept, with the listener, or when the pod is stopped, and then with what stands in the queue: for its clients that is connected already, and
//! would be reset with the listener. Few connections of a listener at once wait for a worker to begin with them, so that a pod that
//! opens more than can be served waits in its own queue, in the kernel, and not in front of its neighbours. A connection that died in
//! the queue is passed over; when the kernel is out of something (descriptors, memory), it waits a little longer each time instead of
//! spinning.

use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::ops::ControlFlow;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use linux::acceptor::Acceptor;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};

const FIRST_PAUSE: Duration = Duration::from_millis(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Connections of a listener with which no worker has begun yet.
const WAITING: usize = 2;
/// No queue is longer (`net.core.somaxconn`). Where another agent has the listener too, connections go on coming.
const QUEUE: usize = 4096;

/// A connection's place among those with which no worker has begun; to be dropped when one does.
#[derive(Debug)]
pub(crate) struct Turn {
    _place: Option<OwnedSemaphorePermit>,
}

/// A connection that was accepted.
#[derive(Debug)]
pub(crate) struct Accepted {
    pub(crate) stream: std::net::TcpStream,
    pub(crate) source: SocketAddr,
    pub(crate) turn: Turn,
    /// How long connections had been waiting in the queue without a pause.
    pub(crate) backlog: Duration,
}

/// Accepts from `listener` until the sender of `serving` is gone, handing connections to `deal`. When that breaks off, the listener is
/// returned, for another thread to go on.
pub(crate) async fn accept(
    listener: std::net::TcpListener,
    mut serving: watch::Receiver<()>,
    mut deal: impl FnMut(Accepted) -> ControlFlow<()>,
) -> Option<std::net::TcpListener> {
    let acceptor = wait_for(listener, &mut serving).await?;
    let (mut pause, waiting) = (FIRST_PAUSE, Arc::new(Semaphore::new(WAITING)));
    // Since when the queue has not been seen empty.
    let mut since = None;
    loop {
        let next = async {
            // Nobody closes it.
            let place = Arc::clone(&waiting).acquire_owned().await.ok();
            let mut accepted = pin!(acceptor.accept());
            let (stream, source) = poll_fn(|cx| {
                let accepted = accepted.as_mut().poll(cx);
                if accepted.is_pending() {
                    since = None;
                }
                accepted
            })
            .await?;
            let now = Instant::now();
            let backlog = now.saturating_duration_since(*since.get_or_insert(now));
            Ok(Accepted { stream, source, turn: Turn { _place: place }, backlog })
        };
        let accepted = tokio::select! {
            // No value is ever sent: this resolves when the pod's handle is dropped.
            _ = serving.changed() => {
                take_rest(&acceptor, deal);
                return None;
            }
            accepted = next => accepted,
        };
        match accepted {
            Ok(accepted) => {
                pause = FIRST_PAUSE;
                if deal(accepted).is_break() {
                    return Some(acceptor.into_inner());
                }
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

/// Has this thread wait for the connections of a listener. Where the kernel is out of what it needs for that, they wait in the queue meanwhile.
/// None if the pod is stopped before.
async fn wait_for(
    mut listener: std::net::TcpListener,
    serving: &mut watch::Receiver<()>,
) -> Option<Acceptor> {
    let mut pause = FIRST_PAUSE;
    loop {
        let error = match Acceptor::new(listener) {
            Ok(acceptor) => return Some(acceptor),
            Err((same, error)) => {
                listener = same;
                error
            }
        };
        tracing::error!(%error, ?pause, "cannot wait for connections of a pod");
        tokio::select! {
            _ = serving.changed() => return None,
            () = tokio::time::sleep(pause) => {}
        }
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// Hands on what the kernel has connected before the end. The runtime need not know of it yet, so it is not asked.
fn take_rest(acceptor: &Acceptor, mut deal: impl FnMut(Accepted) -> ControlFlow<()>) {
    for _ in 0..QUEUE {
        match acceptor.try_accept() {
            Ok((stream, source)) => {
                // Nobody is to accept any more, whoever it was to be.
                let _ =
                    deal(Accepted { stream, source, turn: Turn { _place: None }, backlog: Duration::ZERO });
            }
            Err(error) if is_of_connection(&error) => {}
            // The queue is empty, or the kernel out of something, for which nobody can wait any more.
            Err(_) => return,
        }
    }
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

#[cfg(test)]
mod tests {
    use tokio::sync::mpsc;
    use tokio::time::{sleep, timeout};

    use super::*;

    #[tokio::test]
    async fn what_is_connected_when_the_pod_is_stopped_is_handed_on() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let to = listener.local_addr().unwrap();
        let clients: Vec<_> = (0..5).map(|_| std::net::TcpStream::connect(to).unwrap()).collect();
        let (handle, serving) = watch::channel(());
        drop(handle);
        let mut dealt = Vec::new();
        let ended = accept(listener, serving, |accepted| {
            dealt.push(accepted);
            ControlFlow::Continue(())
        });
        assert!(ended.await.is_none());
        let peers: Vec<_> = dealt.iter().map(|accepted| accepted.source).collect();
        let expected: Vec<_> = clients.iter().map(|client| client.local_addr().unwrap()).collect();
        assert_eq!(peers, expected);
        assert!(std::net::TcpStream::connect(to).is_err(), "the listener is closed");
    }

    #[tokio::test]
    async fn another_thread_goes_on_with_what_is_in_the_queue() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let to = listener.local_addr().unwrap();
        let (_handle, serving) = watch::channel(());
        let clients: Vec<_> = (0..3).map(|_| std::net::TcpStream::connect(to).unwrap()).collect();
        let (deal, dealt) = std::sync::mpsc::channel();
        let mut listener = Some(listener);
        for client in clients {
            let (serving, deal) = (serving.clone(), deal.clone());
            let own = listener.take().unwrap();
            let next = std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
                let one = accept(own, serving, |accepted| {
                    deal.send(accepted.source).unwrap();
                    ControlFlow::Break(())
                });
                runtime.block_on(async { timeout(Duration::from_secs(30), one).await.unwrap() })
            });
            listener = next.join().unwrap();
            assert_eq!(dealt.recv().unwrap(), client.local_addr().unwrap());
        }
        assert!(dealt.try_recv().is_err(), "one each");
    }

    #[tokio::test]
    async fn the_backlog_is_as_old_as_the_first_that_had_to_wait() {
        const LATE: Duration = Duration::from_millis(20);
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        listener.set_nonblocking(true).unwrap();
        let to = listener.local_addr().unwrap();
        let (_handle, serving) = watch::channel(());
        let (deal, mut dealt) = mpsc::unbounded_channel();
        let _clients: Vec<_> = (0..4).map(|_| std::net::TcpStream::connect(to).unwrap()).collect();
        tokio::spawn(accept(listener, serving, move |accepted| {
            deal.send(accepted).unwrap();
            ControlFlow::Continue(())
        }));
        let mut next = async || timeout(Duration::from_secs(30), dealt.recv()).await.unwrap().unwrap();
        let first = next().await;
        assert_eq!(first.backlog, Duration::ZERO);
        // Two may wait for a worker, which takes its time.
        let second = next().await;
        sleep(LATE).await;
        drop((first, second));
        for _ in 0..2 {
            let late = next().await;
            assert!(late.backlog >= LATE, "{:?}", late.backlog);
        }
        // Somebody waits at the queue now.
        sleep(LATE).await;
        let _client = std::net::TcpStream::connect(to).unwrap();
        assert_eq!(next().await.backlog, Duration::ZERO);
    }
}
