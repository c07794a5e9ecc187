//! One tunnel: an HTTP/2 connection to a peer and the streams on it.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use h2::client::SendRequest;
use http::Request;
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::super::baggage::Baggage;
use super::super::client::{Connection, UNSAID, accepted};
use super::super::{BAGGAGE, ConnectError, HboneStream, Http2Config, keepalive};
use crate::relay::Buffer;

/// How long the goodbye of an unused tunnel may take.
const GOODBYE: Duration = Duration::from_secs(5);
/// How long a new tunnel of a pod that is no longer served waits for its first stream.
const UNCLAIMED: Duration = Duration::from_secs(1);

/// A tunnel, as the pool and its leases see it.
#[derive(Debug)]
pub(super) struct Carrier {
    state: Mutex<State>,
    streams: AtomicUsize,
    worked: AtomicBool,
    /// Told when the last stream ends.
    idle: Notify,
    /// True once the peer has said how many streams it takes, or the tunnel has ended.
    settled: watch::Sender<bool>,
}

/// When an unused tunnel is given up.
pub(super) struct Idling<R> {
    /// After how long.
    pub(super) limit: Duration,
    /// Changes when its pod is no longer served; then it need not be unused for long.
    pub(super) serving: watch::Receiver<()>,
    /// Gives it up if it was unused for so long; tells whether it was.
    pub(super) release: R,
}

#[derive(Debug)]
enum State {
    Open { sender: SendRequest<Buffer>, idle_since: Instant },
    Closed(ConnectError),
}

impl Carrier {
    pub(super) fn new(sender: SendRequest<Buffer>) -> Self {
        Self {
            state: Mutex::new(State::Open { sender, idle_since: Instant::now() }),
            streams: AtomicUsize::new(0),
            worked: AtomicBool::new(false),
            idle: Notify::new(),
            settled: watch::Sender::new(false),
        }
    }

    /// Whether a stream has been accepted on it, so that a failure now is not one of setting it up.
    pub(super) fn has_worked(&self) -> bool {
        self.worked.load(Ordering::Relaxed)
    }

    pub(super) fn is_closed(&self) -> bool {
        matches!(*self.state(), State::Closed(_))
    }

    /// Hands it out no more; the first reason given stays.
    pub(super) fn close(&self, reason: ConnectError) {
        let mut state = self.state();
        if let State::Open { .. } = *state {
            *state = State::Closed(reason);
        }
        drop(state);
        self.settled.send_replace(true);
    }

    /// If it carries one stream and may carry more as soon as the peer says so: what is told then.
    pub(super) fn unsettled(&self) -> Option<watch::Receiver<bool>> {
        match &*self.state() {
            State::Open { sender, .. } if sender.current_max_send_streams() == UNSAID => {
                Some(self.settled.subscribe())
            }
            _ => None,
        }
    }

    /// Drives the connection, and tells when the peer has said how many streams it takes.
    async fn drive(&self, connection: &mut Connection) -> Result<(), h2::Error> {
        poll_fn(|cx| {
            let end = Pin::new(&mut *connection).poll(cx);
            if connection.max_concurrent_send_streams() != UNSAID && !*self.settled.borrow() {
                self.settled.send_replace(true);
            }
            end
        })
        .await
    }

    /// Closes it if it has carried nothing for `limit`; tells whether it did.
    pub(super) fn close_if_idle(&self, limit: Duration) -> bool {
        let idle = match *self.state() {
            State::Open { idle_since, .. } => {
                self.streams.load(Ordering::Relaxed) == 0 && idle_since.elapsed() >= limit
            }
            State::Closed(_) => false,
        };
        if idle {
            self.close(ConnectError::Http2("unused for too long".into()));
        }
        idle
    }

    /// Drives the connection until it ends, the peer is lost, or it is given up for being unused.
    pub(super) async fn run(
        &self,
        mut connection: Connection,
        http2: &Http2Config,
        mut idling: Idling<impl Fn(Duration) -> bool>,
    ) -> ConnectError {
        let lost = keepalive::peer_lost(connection.ping_pong(), http2.ping_interval, http2.ping_timeout);
        let mut lost = pin!(lost);
        let mut served = true;
        loop {
            tokio::select! {
                end = self.drive(&mut connection) => return match end {
                    Ok(()) => ConnectError::Http2("closed by the peer".into()),
                    Err(error) => error.into(),
                },
                () = &mut lost => return ConnectError::Http2("the peer stopped answering".into()),
                // No value is ever sent: this resolves when the pod's handle is dropped.
                _ = idling.serving.changed(), if served => {
                    served = false;
                    // One that was just dialled is on its way to a connection that came before.
                    idling.limit = if self.has_worked() { Duration::ZERO } else { UNCLAIMED };
                }
                () = self.idle_for(idling.limit) => {
                    if (idling.release)(idling.limit) {
                        // With the last handle gone h2 says GOAWAY and closes in good order.
                        let _ = timeout(GOODBYE, connection).await;
                        return ConnectError::Http2("unused for too long".into());
                    }
                }
            }
        }
    }

    /// Returns when it may have been idle for so long.
    async fn idle_for(&self, limit: Duration) {
        loop {
            let since = match *self.state() {
                State::Open { idle_since, .. } if self.streams.load(Ordering::Relaxed) == 0 => {
                    Some(idle_since)
                }
                _ => None,
            };
            match since {
                Some(since) => return sleep_until(since + limit).await,
                None => self.idle.notified().await,
            }
        }
    }

    fn state(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A place for one stream on a tunnel; given back when dropped.
#[derive(Debug)]
pub(crate) struct Lease {
    carrier: Arc<Carrier>,
}

impl Lease {
    /// Takes a place if one is free. The pool's lock is held, so that nobody takes the same.
    pub(super) fn take(carrier: &Arc<Carrier>, max_streams: usize) -> Option<Self> {
        let allowed = match &*carrier.state() {
            State::Open { sender, .. } => match sender.current_max_send_streams() {
                UNSAID => max_streams.min(1),
                said => said.min(max_streams),
            },
            State::Closed(_) => 0,
        };
        if carrier.streams.load(Ordering::Relaxed) >= allowed {
            return None;
        }
        carrier.streams.fetch_add(1, Ordering::Relaxed);
        Some(Self { carrier: Arc::clone(carrier) })
    }

    pub(super) fn carrier(&self) -> &Arc<Carrier> {
        &self.carrier
    }

    /// Sends the request and waits for its answer.
    pub(super) async fn open(self, request: Request<()>) -> Result<(HboneStream, Baggage), ConnectError> {
        let sender = match &*self.carrier.state() {
            State::Open { sender, .. } => sender.clone(),
            State::Closed(reason) => return Err(reason.clone().unsent()),
        };
        let exchange = async {
            let (response, send) = sender.ready().await?.send_request(request, false)?;
            Ok::<_, h2::Error>((response.await?, send))
        };
        let (response, send) = match exchange.await {
            Ok(exchange) => exchange,
            Err(error) => return Err(self.failed(error)),
        };
        self.carrier.worked.store(true, Ordering::Relaxed);
        accepted(response.status())?;
        let (head, recv) = response.into_parts();
        let baggage = head.headers.get(BAGGAGE).and_then(|value| value.to_str().ok());
        let baggage = baggage.map(Baggage::parse).unwrap_or_default();
        Ok((HboneStream { send, recv, _lease: Some(self), _in_use: None }, baggage))
    }

    /// A reset is of the one stream; everything else (GOAWAY, a broken connection) closes the tunnel.
    fn failed(&self, error: h2::Error) -> ConnectError {
        let of_stream = error.is_reset();
        let error = ConnectError::from(error);
        if of_stream {
            return error;
        }
        self.carrier.close(error.clone());
        if matches!(error, ConnectError::Unprocessed(_)) {
            return error;
        }
        match &*self.carrier.state() {
            State::Closed(reason) => reason.clone(),
            State::Open { .. } => ConnectError::Http2("closed".into()),
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.carrier.streams.fetch_sub(1, Ordering::Relaxed) == 1 {
            if let State::Open { idle_since, .. } = &mut *self.carrier.state() {
                *idle_since = Instant::now();
            }
            self.carrier.idle.notify_one();
        }
    }
}
