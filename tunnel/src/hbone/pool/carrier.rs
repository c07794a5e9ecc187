//! One tunnel: an HTTP/2 connection to a peer and the streams on it.

use std::future::{pending, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use futures_util::FutureExt;
use h2::Reason;
use h2::client::{Connection, SendRequest};
use http::Request;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{Notify, watch};
use tokio::time::{Instant, sleep_until, timeout};

use super::super::baggage::Baggage;
use super::super::client::accepted;
use super::super::signs::Signs;
use super::super::strain::Strain;
use super::super::{ConnectError, HboneStream, Http2Config, keepalive};
use crate::relay::Buffer;
use crate::tls::{HandshakeError, Session, revoked};

/// How long the goodbye of an unused tunnel may take.
const GOODBYE: Duration = Duration::from_secs(5);
/// How long a new tunnel of a pod that is no longer served waits for its first stream.
const UNCLAIMED: Duration = Duration::from_secs(1);

/// A tunnel, as the pool and its leases see it.
#[derive(Debug)]
pub(super) struct Carrier {
    state: Mutex<State>,
    streams: AtomicUsize,
    strain: Arc<Strain>,
    session: Option<Arc<Session>>,
    worked: AtomicBool,
    /// Whether the peer's SETTINGS have come, which are its first word (RFC 9113 section 3.4).
    heard: AtomicBool,
    /// Told when the peer is first heard.
    first_word: Notify,
    /// Told when the last stream ends.
    idle: Notify,
}

/// When an unused tunnel is given up.
pub(super) struct Idling<R> {
    /// After how long.
    pub(super) limit: Duration,
    /// After how long if there is another one to the peer.
    pub(super) spare: Duration,
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
    pub(super) fn new(
        sender: SendRequest<Buffer>,
        strain: Arc<Strain>,
        session: Option<Arc<Session>>,
    ) -> Self {
        Self {
            state: Mutex::new(State::Open { sender, idle_since: Instant::now() }),
            streams: AtomicUsize::new(0),
            strain,
            session,
            worked: AtomicBool::new(false),
            heard: AtomicBool::new(false),
            first_word: Notify::new(),
            idle: Notify::new(),
        }
    }

    /// Whether a stream has been accepted on it, so that a failure now is not one of setting it up.
    pub(super) fn has_worked(&self) -> bool {
        self.worked.load(Ordering::Relaxed)
    }

    /// Whether the peer has been heard, so that it is known how many streams it allows.
    pub(super) fn is_heard(&self) -> bool {
        self.heard.load(Ordering::Acquire)
    }

    /// The peer has been heard.
    fn hear(&self) {
        if !self.heard.swap(true, Ordering::AcqRel) {
            self.first_word.notify_waiters();
        }
    }

    pub(super) fn is_closed(&self) -> bool {
        matches!(*self.state(), State::Closed(_))
    }

    /// How many streams it carries.
    pub(super) fn streams(&self) -> usize {
        self.streams.load(Ordering::Relaxed)
    }

    /// Whether it carries fewer than `crowded` streams, and none of them waits for room.
    pub(super) fn is_at_ease(&self, crowded: usize) -> bool {
        self.streams() < crowded && !self.strain.is_felt()
    }

    /// How many streams the peer allows by now; none when it wants no more.
    pub(super) fn allowed(&self) -> usize {
        let sender = match &*self.state() {
            State::Open { sender, .. } => sender.clone(),
            State::Closed(_) => return 0,
        };
        let streams = sender.current_max_send_streams();
        // Told to go away, or broken: it knows before its driver does.
        match sender.ready().now_or_never() {
            Some(Err(error)) => {
                self.close(error.into());
                0
            }
            _ => streams,
        }
    }

    /// Completes if it turns out, with the peer's first word, that the peer does not allow as many streams as `place` and
    /// one more.
    async fn refuses(&self, place: usize) {
        let first_word = self.first_word.notified();
        if !self.is_heard() {
            first_word.await;
        }
        if place < self.allowed() {
            pending::<()>().await;
        }
    }

    /// Hands it out no more; the first reason given stays.
    pub(super) fn close(&self, reason: ConnectError) {
        let mut state = self.state();
        if let State::Open { .. } = *state {
            *state = State::Closed(reason);
        }
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
    pub(super) async fn run<T: AsyncRead + AsyncWrite + Unpin>(
        &self,
        (mut connection, signs): (Connection<T, Buffer>, Signs),
        http2: &Http2Config,
        mut idling: Idling<impl Fn(Duration) -> bool>,
    ) -> ConnectError {
        let (ping, interval) = (connection.ping_pong(), http2.ping_interval);
        let mut lost = pin!(keepalive::peer_lost(ping, interval, http2.ping_timeout, signs));
        let mut revoked = pin!(revoked(self.session.clone()));
        let unheard = connection.max_concurrent_send_streams();
        // It is looked at twice while it is unused: when a spare one is given up, and when any is.
        let (mut served, mut looked_at) = (true, None);
        loop {
            let patience = |since| {
                if looked_at == Some(since) { idling.limit } else { idling.limit.min(idling.spare) }
            };
            self.strain.apply(&mut connection);
            tokio::select! {
                // What has come is read before the peer is given up for not having sent it. All else is looked at before that: a peer that
                // has always something to be read uses the task's turn up (tokio's budget), and what is behind would never have one.
                biased;
                () = self.strain.changed() => {}
                // Streams on it end by themselves, as soon.
                () = &mut revoked => return HandshakeError::Revoked.into(),
                // No value is ever sent: this resolves when the pod's handle is dropped.
                _ = idling.serving.changed(), if served => {
                    served = false;
                    // One that was just dialled is on its way to a connection that came before.
                    idling.limit = if self.has_worked() { Duration::ZERO } else { UNCLAIMED };
                }
                since = self.idle_for(patience) => {
                    looked_at = Some(since);
                    if (idling.release)(idling.limit) {
                        // With the last handle gone h2 says GOAWAY and closes in good order.
                        let _ = timeout(GOODBYE, connection).await;
                        return ConnectError::Http2("unused for too long".into());
                    }
                }
                end = poll_fn(|cx| {
                    let end = connection.poll_unpin(cx);
                    // Streams that wait for the library to send them are told of by nobody else. A peer that allows just what
                    // was assumed has none of them wait.
                    if connection.max_concurrent_send_streams() != unheard {
                        self.hear();
                    }
                    end
                }) => return match end {
                    Ok(()) => ConnectError::Http2("closed by the peer".into()),
                    Err(error) => error.into(),
                },
                () = &mut lost => return ConnectError::Http2("the peer stopped answering".into()),
            }
        }
    }

    /// Returns when it may have been idle for as long as `patience` says of the moment since which it is; returns the moment.
    async fn idle_for(&self, patience: impl Fn(Instant) -> Duration) -> Instant {
        loop {
            let since = match *self.state() {
                State::Open { idle_since, .. } if self.streams.load(Ordering::Relaxed) == 0 => {
                    Some(idle_since)
                }
                _ => None,
            };
            match since {
                Some(since) => {
                    sleep_until(since + patience(since)).await;
                    return since;
                }
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

/// A stream that was not opened.
pub(super) struct Unopened {
    pub(super) error: ConnectError,
    pub(super) elsewhere: Elsewhere,
}

/// Whether a stream that was not opened may be opened on another tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Elsewhere {
    /// No: the peer may have done something about it.
    No,
    /// The peer says that it has done nothing about it.
    Untouched,
    /// The same, and it was one more than the peer allows on a tunnel, which was not known when it was sent.
    NoRoom,
}

impl From<ConnectError> for Unopened {
    fn from(error: ConnectError) -> Self {
        Self { error, elsewhere: Elsewhere::No }
    }
}

impl Lease {
    /// Takes a place if one is free, and tells which: how many streams there were before. The pool's lock is held, so that
    /// nobody takes the same.
    pub(super) fn take(carrier: &Arc<Carrier>, max_streams: usize) -> Option<(Self, usize)> {
        let place = carrier.streams();
        if place >= carrier.allowed().min(max_streams) {
            return None;
        }
        carrier.streams.fetch_add(1, Ordering::Relaxed);
        Some((Self { carrier: Arc::clone(carrier) }, place))
    }

    pub(super) fn carrier(&self) -> &Arc<Carrier> {
        &self.carrier
    }

    /// Sends the request and waits for its answer.
    pub(super) async fn open(
        self,
        place: usize,
        request: Request<()>,
    ) -> Result<(HboneStream, Baggage), Unopened> {
        let sender = match &*self.carrier.state() {
            State::Open { sender, .. } => sender.clone(),
            State::Closed(reason) => {
                return Err(Unopened { error: reason.clone(), elsewhere: Elsewhere::Untouched });
            }
        };
        let exchange = async {
            let (response, send) = sender.ready().await?.send_request(request, false)?;
            Ok::<_, h2::Error>((response.await?, send))
        };
        let exchange = tokio::select! {
            biased;
            exchange = exchange => exchange,
            () = self.carrier.refuses(place) => {
                let error = ConnectError::Http2("the peer allows fewer streams".into());
                return Err(Unopened { error, elsewhere: Elsewhere::NoRoom });
            }
        };
        let (response, send) = exchange.map_err(|error| self.failed(error, place))?;
        self.carrier.worked.store(true, Ordering::Relaxed);
        self.carrier.hear();
        let baggage = accepted(&response)?;
        let mut recv = response.into_body();
        let strain = Some(self.carrier.strain.enter(&mut recv));
        Ok((
            HboneStream {
                send,
                recv,
                strain,
                session: self.carrier.session.clone(),
                _lease: Some(self),
                _in_use: None,
            },
            baggage,
        ))
    }

    /// A reset is of the one stream; everything else (GOAWAY, a broken connection) closes the tunnel. A stream that was
    /// refused, or that came after the last one a GOAWAY lets through, is untouched (RFC 9113 §8.7).
    fn failed(&self, error: h2::Error, place: usize) -> Unopened {
        let refused = error.is_reset() && error.reason() == Some(Reason::REFUSED_STREAM);
        let untouched = error.is_remote() && (error.is_go_away() || refused);
        let elsewhere = if untouched { Elsewhere::Untouched } else { Elsewhere::No };
        if error.is_reset() {
            let mut elsewhere = elsewhere;
            if error.is_remote() {
                self.carrier.hear();
                if refused && place >= self.carrier.allowed() {
                    elsewhere = Elsewhere::NoRoom;
                }
            }
            return Unopened { error: error.into(), elsewhere };
        }
        self.carrier.close(error.into());
        let error = match &*self.carrier.state() {
            State::Closed(reason) => reason.clone(),
            State::Open { .. } => ConnectError::Http2("closed".into()),
        };
        Unopened { error, elsewhere }
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

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use tokio::time::advance;

    use super::super::super::signs::Watched;
    use super::*;

    /// Requests of which no more than one has been sent when the peer turns out to allow no more: the other goes elsewhere,
    /// however long the first one's answer takes.
    #[tokio::test]
    async fn what_the_peer_has_no_room_for_goes_elsewhere_though_it_answers_nobody() {
        let http2 = Http2Config::default();
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let peer = tokio::spawn(async move {
            let mut builder = h2::server::Builder::new();
            let mut peer = builder.max_concurrent_streams(1).handshake::<_, Bytes>(theirs).await.unwrap();
            let mut unanswered = Vec::new();
            while let Some(Ok(request)) = peer.accept().await {
                unanswered.push(request);
            }
            unanswered.len()
        });
        let (sender, connection) = h2::client::Builder::new().handshake::<_, Buffer>(ours).await.unwrap();
        let carrier = Arc::new(Carrier::new(sender, Strain::new(&http2), None));
        let request = || Request::connect("10.0.0.2:80").body(()).unwrap();
        let [mut first, mut second] = [0, 1].map(|place| {
            let (lease, taken) = Lease::take(&carrier, 2).unwrap();
            assert_eq!(taken, place);
            Box::pin(lease.open(place, request()))
        });
        assert!((&mut first).now_or_never().is_none());
        assert!((&mut second).now_or_never().is_none());
        let driven = Arc::clone(&carrier);
        let driver = tokio::spawn(async move {
            let (serving, still) = watch::channel(());
            let limit = Duration::from_secs(60);
            let idling = Idling { limit, spare: limit, serving: still, release: |_| false };
            let end = driven.run((connection, Signs::default()), &http2, idling).await;
            drop(serving);
            end
        });
        let second = timeout(Duration::from_secs(20), second).await.expect("it waits for room");
        assert_eq!(second.err().unwrap().elsewhere, Elsewhere::NoRoom);
        assert!(first.now_or_never().is_none());
        driver.abort();
        assert_eq!(peer.await.unwrap(), 1);
    }

    /// An end that was starved finds all limits over and the answer there, in the same turn.
    #[tokio::test(start_paused = true)]
    async fn a_peer_is_not_given_up_while_its_answer_waits_to_be_read() {
        let http2 = Http2Config::default();
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        let mut peer = pin!(async move {
            let mut peer = h2::server::handshake(theirs).await.unwrap();
            while let Some(Ok((_, _respond))) = h2::server::Connection::<_, Bytes>::accept(&mut peer).await {}
        });
        let signs = Signs::default();
        let watched = Watched::of(ours, &signs);
        let (sender, connection) = h2::client::Builder::new().handshake::<_, Buffer>(watched).await.unwrap();
        let carrier = Carrier::new(sender, Strain::new(&http2), None);
        let (_serving, serving) = watch::channel(());
        let limit = Duration::from_secs(1 << 20);
        let idling = Idling { limit, spare: limit, serving, release: |_| false };
        let mut driver = pin!(carrier.run((connection, signs), &http2, idling));
        for _ in 0..50 {
            // It is asked, and gives no answer yet.
            for step in [Duration::ZERO, http2.ping_interval / 2, http2.ping_interval / 2, http2.ping_timeout]
            {
                advance(step).await;
                assert!(driver.as_mut().now_or_never().is_none());
                assert!(driver.as_mut().now_or_never().is_none());
            }
            for _ in 0..2 {
                assert!(peer.as_mut().now_or_never().is_none());
            }
            advance(http2.ping_timeout).await;
            let given_up = driver.as_mut().now_or_never();
            assert!(given_up.is_none(), "{given_up:?}, and it has answered");
        }
    }
}
