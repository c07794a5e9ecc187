//! The accepting end: an HTTP/2 connection over an established TLS one, and the CONNECT requests on it.
//!
//! Only well-formed CONNECT requests get out of here; anything else is answered with 400. Whoever takes a
//! [`ConnectRequest`] answers it, with [`ConnectRequest::accept`] or [`ConnectRequest::refuse`]; dropping it
//! resets the stream. A client may open streams and reset them faster than they are worked on: no more wait for their
//! answer than may be open, the rest is answered with 503. A tunnel on which nobody asks for anything is closed.

use std::future::{pending, poll_fn};
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use h2::server::{Builder, Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use mesh::Authority;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::task::yield_now;
use tokio::time::{Instant, sleep_until, timeout};

use super::baggage::Baggage;
use super::forwarded::Forwarded;
use super::signs::{Signs, Watched};
use super::strain::Strain;
use super::usage::{InUse, Usage};
use super::{
    BAGGAGE, FORWARDED, FORWARDED_NETWORK, HboneStream, Http2Config, TRACEPARENT, Traceparent, keepalive,
};
use crate::config::Timeouts;
use crate::relay::Buffer;

/// Why serving a connection ended other than by the client's leaving.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ServeError {
    #[error("http2 error: {0}")]
    Http2(#[from] h2::Error),
    #[error("the client did not finish the http2 handshake within {0:?}")]
    Handshake(Duration),
    #[error("the client stopped answering")]
    Lost,
    #[error("the client does not leave a tunnel that was closed for being unused")]
    Lingering,
}

/// Requests that are taken from a tunnel in one turn, some microseconds each. What is answered in one turn goes out together, so fewer make
/// each connection dearer.
const TURN: u8 = 16;
/// How long a client may take to leave an unused tunnel after it was told to.
const GOODBYE: Duration = Duration::from_secs(5);

/// Serves one connection until the client leaves it, handing each CONNECT request to `on_request`. When the sender of
/// `serving` is gone the client is told to open no more streams here; those that are there go on. So it is when it has had no
/// stream for too long; then nothing is left to go on, and the connection is closed.
pub(crate) async fn serve<T>(
    io: T,
    config: &Http2Config,
    limits: &Timeouts,
    mut serving: watch::Receiver<()>,
    mut on_request: impl FnMut(ConnectRequest),
) -> Result<(), ServeError>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let handshake = limits.http2_handshake;
    let signs = Signs::default();
    let accepting = Builder::new()
        .initial_window_size(config.stream_window)
        .initial_connection_window_size(config.connection_window)
        .max_frame_size(config.frame_size)
        .max_header_list_size(config.server_header_list)
        .max_concurrent_streams(config.max_streams)
        .handshake::<_, Buffer>(Watched::of(io, &signs));
    let mut connection: Connection<Watched<T>, Buffer> =
        timeout(handshake, accepting).await.map_err(|_| ServeError::Handshake(handshake))??;
    let usage = Arc::new(Usage::default());
    let mut unused = pin!(usage.unused(limits.first_request, limits.unused_tunnel));
    let waiting = Arc::new(Semaphore::new(config.max_streams as usize));
    let (ping, interval) = (connection.ping_pong(), config.ping_interval);
    let mut lost = pin!(keepalive::peer_lost(ping, interval, config.ping_timeout, signs));
    let strain = Strain::new(config);
    let (mut served, mut goodbye) = (true, None);
    let mut taken = 0;
    loop {
        strain.apply(&mut connection);
        let lingering = async {
            match goodbye {
                Some(since) => {
                    sleep_until(since + GOODBYE).await;
                    // A stream that crossed the goodbye is served to its end.
                    usage.none().await;
                }
                None => pending().await,
            }
        };
        // A few a turn: what a peer asks for at once must not all be queued before the work of other tunnels. Not where one is taken, for
        // the task would have to keep room for it.
        let next = async {
            if taken == TURN {
                taken = 0;
                yield_now().await;
            }
            connection.accept().await
        };
        tokio::select! {
            // What has come is read before the peer is given up for not having sent it. All else is looked at before that: a peer that has
            // always something to be read uses the task's turn up (tokio's budget), and what is behind would never have one.
            biased;
            () = strain.changed() => {}
            // No value is ever sent: this resolves when the pod's handle is dropped.
            _ = serving.changed(), if served => {
                served = false;
                connection.graceful_shutdown();
            }
            () = &mut unused, if goodbye.is_none() => {
                goodbye = Some(Instant::now());
                connection.graceful_shutdown();
            }
            () = lingering => return Err(ServeError::Lingering),
            accepted = next => match accepted {
                Some(accepted) => {
                    let (request, respond) = accepted?;
                    let parsed = ConnectRequest::parse(request, respond, &waiting, (&usage, &strain));
                    if let Some(request) = parsed {
                        on_request(request);
                    }
                    taken += 1;
                }
                None => return Ok(()),
            },
            () = &mut lost => return Err(ServeError::Lost),
        }
    }
}

/// What a client asks for, and what it says about itself.
#[derive(Debug)]
pub(crate) struct Asked {
    /// What the client wants to be connected to.
    pub(crate) authority: Authority,
    /// What the client says about itself.
    pub(crate) baggage: Baggage,
    /// Whom the client speaks for.
    pub(crate) forwarded: Forwarded,
    /// The connection's trace, if the client sent one.
    pub(crate) traceparent: Option<Traceparent>,
    /// The client's network, where its tunnel came through that network's gateway.
    pub(crate) network: Option<Box<str>>,
}

/// A well-formed CONNECT request that waits for its answer.
#[derive(Debug)]
pub(crate) struct ConnectRequest {
    /// What it asks for. Boxed, for it is large and goes before the first byte moves.
    pub(crate) asked: Box<Asked>,
    recv: RecvStream,
    respond: SendResponse<Buffer>,
    in_use: InUse,
    /// Boxed, too.
    waiting: Box<Waiting>,
}

/// A request's place among those that wait for their answer, on a tunnel with this account.
#[derive(Debug)]
struct Waiting {
    strain: Arc<Strain>,
    _place: OwnedSemaphorePermit,
}

impl ConnectRequest {
    fn parse(
        request: Request<RecvStream>,
        mut respond: SendResponse<Buffer>,
        waiting: &Arc<Semaphore>,
        (usage, strain): (&Arc<Usage>, &Arc<Strain>),
    ) -> Option<Self> {
        let (head, recv) = request.into_parts();
        let authority =
            (head.method == Method::CONNECT).then(|| head.uri.authority()?.as_str().parse().ok()).flatten();
        let Some(authority) = authority else {
            answer(&mut respond, StatusCode::BAD_REQUEST);
            return None;
        };
        let Ok(place) = Arc::clone(waiting).try_acquire_owned() else {
            answer(&mut respond, StatusCode::SERVICE_UNAVAILABLE);
            return None;
        };
        let header = |name| head.headers.get(name).and_then(|value| value.to_str().ok());
        let asked = Asked {
            authority,
            baggage: header(BAGGAGE).map(Baggage::parse).unwrap_or_default(),
            forwarded: header(FORWARDED).map(Forwarded::parse).unwrap_or_default(),
            traceparent: header(TRACEPARENT).and_then(|text| text.parse().ok()),
            network: header(FORWARDED_NETWORK).map(Box::from),
        };
        let waiting = Waiting { strain: Arc::clone(strain), _place: place };
        let in_use = usage.enter();
        Some(Self { asked: Box::new(asked), recv, respond, in_use, waiting: Box::new(waiting) })
    }

    /// Completes when the client gives up waiting: with the reason of its reset, or with what became of its tunnel.
    pub(crate) async fn gone(&mut self) -> Result<Reason, h2::Error> {
        poll_fn(|cx| self.respond.poll_reset(cx)).await
    }

    /// Refuses the connection.
    pub(crate) fn refuse(mut self, status: StatusCode) {
        answer(&mut self.respond, status);
    }

    /// Answers 200; the application has accepted. `baggage` describes the workload that did.
    pub(crate) fn accept(mut self, baggage: &str) -> Result<HboneStream, h2::Error> {
        let mut response = Response::new(());
        if let Ok(value) = HeaderValue::from_str(baggage) {
            response.headers_mut().insert(BAGGAGE, value);
        }
        let send = self.respond.send_response(response, false)?;
        let strain = Some(self.waiting.strain.enter(&mut self.recv));
        Ok(HboneStream {
            send,
            recv: self.recv,
            strain,
            session: None,
            _lease: None,
            _in_use: Some(self.in_use),
        })
    }
}

/// Sends an answer without a body. If the client is gone there is nobody to tell.
fn answer(respond: &mut SendResponse<Buffer>, status: StatusCode) {
    let mut response = Response::new(());
    *response.status_mut() = status;
    let _ = respond.send_response(response, true);
}

#[cfg(test)]
mod tests {
    use futures_util::FutureExt as _;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::time::advance;

    use super::*;

    /// A server that never answers the first request meanwhile refuses the second: the client has reset the first.
    #[tokio::test]
    async fn resets_do_not_pile_work_up() {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let server = tokio::spawn(async move {
            let config = Http2Config { max_streams: 1, ..Http2Config::default() };
            let mut held = Vec::new();
            let (_serving, serving) = watch::channel(());
            serve(ours, &config, &Timeouts::default(), serving, |request| held.push(request)).await
        });
        let (mut sender, connection) = h2::client::handshake(theirs).await.unwrap();
        tokio::spawn(connection);
        let mut ask = async || {
            sender = sender.clone().ready().await.unwrap();
            let request = Request::builder().method(Method::CONNECT).uri("10.0.0.2:80").body(()).unwrap();
            sender.send_request(request, false).unwrap()
        };
        let (_answer, mut first) = ask().await;
        first.send_reset(Reason::CANCEL);
        let (second, _send) = ask().await;
        let answer = timeout(Duration::from_secs(5), second).await.unwrap().unwrap();
        assert_eq!(answer.status(), StatusCode::SERVICE_UNAVAILABLE);
        server.abort();
    }

    /// Our end of a tunnel on which the client has asked for so many streams already.
    async fn asked(streams: usize) -> (tokio::io::DuplexStream, tokio::task::JoinHandle<()>) {
        let (ours, theirs) = tokio::io::duplex(1 << 20);
        let (mut sender, mut connection) = h2::client::handshake(theirs).await.unwrap();
        let exchanges = Vec::from_iter((0..streams).map(|_| {
            let request = Request::builder().method(Method::CONNECT).uri("10.0.0.2:80").body(()).unwrap();
            sender.send_request(request, false).unwrap()
        }));
        // All is written in one go, for there is room.
        assert!((&mut connection).now_or_never().is_none());
        let client = tokio::spawn(async move {
            let _exchanges = exchanges;
            let _ = connection.await;
        });
        (ours, client)
    }

    #[tokio::test]
    async fn a_tunnel_with_many_requests_does_not_put_them_all_before_the_next_ones() {
        let ((many, _), (one, _)) = (asked(100).await, asked(1).await);
        let (config, limits) = (Http2Config::default(), Timeouts::default());
        let (_served, serving) = watch::channel(());
        let (taken, waits) = (std::cell::Cell::new(0), std::cell::Cell::new(None));
        let mut held = Vec::new();
        let crowd = serve(many, &config, &limits, serving.clone(), |request| {
            taken.set(taken.get() + 1);
            held.push(request);
        });
        let (tell, told) = tokio::sync::oneshot::channel();
        let mut tell = Some(tell);
        let single = serve(one, &config, &limits, serving, |request| {
            waits.set(Some(request));
            let _ = tell.take().map(|tell| tell.send(taken.get()));
        });
        let before = tokio::select! {
            biased;
            _ = crowd => panic!("the crowd is gone"),
            _ = single => panic!("the single one is gone"),
            before = told => before.unwrap(),
        };
        assert!((1..=usize::from(TURN)).contains(&before), "{before} requests were taken before it");
    }

    async fn unused(
        theirs: impl Future<Output = ()> + Send + 'static,
        ours: tokio::io::DuplexStream,
    ) -> Result<(), ServeError> {
        let client = tokio::spawn(theirs);
        let (_serving, serving) = watch::channel(());
        let ended = serve(ours, &Http2Config::default(), &Timeouts::default(), serving, drop).await;
        client.abort();
        ended
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_never_asks_is_told_to_go() {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let client = async {
            let (_sender, connection) = h2::client::handshake(theirs).await.unwrap();
            connection.await.unwrap();
        };
        let began = Instant::now();
        // It goes at once, so there may be nobody to hear the last word.
        let ended = unused(client, ours).await;
        assert!(!matches!(ended, Err(ServeError::Lingering | ServeError::Lost)), "{ended:?}");
        assert_eq!(began.elapsed().as_secs(), Timeouts::default().first_request.as_secs());
    }

    /// It answers PINGs and acknowledges SETTINGS, and does nothing else, whatever it is told.
    async fn cling(mut io: tokio::io::DuplexStream) {
        const ACK: u8 = 1;
        io.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
        let mut head = [0; 9];
        while io.read_exact(&mut head).await.is_ok() {
            let [high, middle, low, kind, flags, ..] = head;
            let mut payload = vec![0; u32::from_be_bytes([0, high, middle, low]) as usize];
            io.read_exact(&mut payload).await.unwrap();
            let (settings, ping) = (kind == 4, kind == 6);
            if (settings || ping) && flags & ACK == 0 {
                let length = if ping { 8 } else { 0 };
                io.write_all(&[0, 0, length, kind, ACK, 0, 0, 0, 0]).await.unwrap();
                io.write_all(payload.get(..usize::from(length)).unwrap()).await.unwrap();
            }
        }
    }

    /// An end that was starved finds all limits over and the answer there, in the same turn.
    #[tokio::test(start_paused = true)]
    async fn a_client_is_not_given_up_while_its_answer_waits_to_be_read() {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let (config, long) = (Http2Config::default(), Duration::from_secs(1 << 20));
        let limits = Timeouts { first_request: long, ..Timeouts::default() };
        let (_serving, serving) = watch::channel(());
        let mut client = pin!(cling(theirs));
        let mut server = pin!(serve(ours, &config, &limits, serving, drop));
        assert!(client.as_mut().now_or_never().is_none());
        for _ in 0..50 {
            // It is asked, and gives no answer yet.
            for step in
                [Duration::ZERO, config.ping_interval / 2, config.ping_interval / 2, config.ping_timeout]
            {
                advance(step).await;
                assert!(server.as_mut().now_or_never().is_none());
                assert!(server.as_mut().now_or_never().is_none());
            }
            assert!(client.as_mut().now_or_never().is_none());
            advance(config.ping_timeout).await;
            assert!(server.as_mut().now_or_never().is_none(), "it has answered");
            assert!(client.as_mut().now_or_never().is_none());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn a_client_that_does_not_go_is_left() {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let began = Instant::now();
        // Either way it is over: h2 closes by itself once its goodbye is acknowledged.
        let ended = unused(cling(theirs), ours).await;
        assert!(matches!(ended, Ok(()) | Err(ServeError::Lingering)), "{ended:?}");
        assert!(began.elapsed() <= Timeouts::default().first_request + GOODBYE, "{:?}", began.elapsed());
    }
}
