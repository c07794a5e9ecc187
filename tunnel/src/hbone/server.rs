//! The accepting end: an HTTP/2 connection over an established TLS one, and the CONNECT requests on it.
//!
//! Only well-formed CONNECT requests get out of here; anything else is answered with 400. Whoever takes a
//! [`ConnectRequest`] answers it, with [`ConnectRequest::accept`] or [`ConnectRequest::refuse`]; dropping it
//! resets the stream. A client may open streams and reset them faster than they are worked on: no more wait for their
//! answer than may be open, the rest is answered with 503.

use std::future::poll_fn;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use h2::server::{Builder, Connection, SendResponse};
use h2::{Reason, RecvStream};
use http::{HeaderValue, Method, Request, Response, StatusCode};
use mesh::Authority;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, watch};
use tokio::time::timeout;

use super::baggage::Baggage;
use super::forwarded::Forwarded;
use super::{BAGGAGE, FORWARDED, HboneStream, Http2Config, TRACEPARENT, Traceparent, keepalive};
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
}

/// Serves one connection until the client leaves it, handing each CONNECT request to `on_request`. When the sender of
/// `serving` is gone the client is told to open no more streams here; those that are there go on.
pub(crate) async fn serve<T>(
    io: T,
    config: &Http2Config,
    handshake: Duration,
    mut serving: watch::Receiver<()>,
    mut on_request: impl FnMut(ConnectRequest),
) -> Result<(), ServeError>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let accepting = Builder::new()
        .initial_window_size(config.stream_window)
        .initial_connection_window_size(config.connection_window)
        .max_frame_size(config.frame_size)
        .max_header_list_size(config.server_header_list)
        .max_concurrent_streams(config.max_streams)
        .handshake::<_, Buffer>(io);
    let mut connection: Connection<T, Buffer> =
        timeout(handshake, accepting).await.map_err(|_| ServeError::Handshake(handshake))??;
    let pending = Arc::new(Semaphore::new(config.max_streams as usize));
    let mut lost =
        pin!(keepalive::peer_lost(connection.ping_pong(), config.ping_interval, config.ping_timeout));
    let mut served = true;
    loop {
        tokio::select! {
            // No value is ever sent: this resolves when the pod's handle is dropped.
            _ = serving.changed(), if served => {
                served = false;
                connection.graceful_shutdown();
            }
            accepted = connection.accept() => match accepted {
                Some(accepted) => {
                    let (request, respond) = accepted?;
                    if let Some(request) = ConnectRequest::parse(request, respond, &pending) {
                        on_request(request);
                    }
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
}

/// A well-formed CONNECT request that waits for its answer.
#[derive(Debug)]
pub(crate) struct ConnectRequest {
    /// What it asks for. Boxed, for it is large and goes before the first byte moves.
    pub(crate) asked: Box<Asked>,
    recv: RecvStream,
    respond: SendResponse<Buffer>,
    _pending: OwnedSemaphorePermit,
}

impl ConnectRequest {
    fn parse(
        request: Request<RecvStream>,
        mut respond: SendResponse<Buffer>,
        pending: &Arc<Semaphore>,
    ) -> Option<Self> {
        let (head, recv) = request.into_parts();
        let authority =
            (head.method == Method::CONNECT).then(|| head.uri.authority()?.as_str().parse().ok()).flatten();
        let Some(authority) = authority else {
            answer(&mut respond, StatusCode::BAD_REQUEST);
            return None;
        };
        let Ok(place) = Arc::clone(pending).try_acquire_owned() else {
            answer(&mut respond, StatusCode::SERVICE_UNAVAILABLE);
            return None;
        };
        let header = |name| head.headers.get(name).and_then(|value| value.to_str().ok());
        let asked = Asked {
            authority,
            baggage: header(BAGGAGE).map(Baggage::parse).unwrap_or_default(),
            forwarded: header(FORWARDED).map(Forwarded::parse).unwrap_or_default(),
            traceparent: header(TRACEPARENT).and_then(|text| text.parse().ok()),
        };
        Some(Self { asked: Box::new(asked), recv, respond, _pending: place })
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
        Ok(HboneStream { send, recv: self.recv, _lease: None })
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
    use super::*;

    /// A server that never answers the first request meanwhile refuses the second: the client has reset the first.
    #[tokio::test]
    async fn resets_do_not_pile_work_up() {
        let (ours, theirs) = tokio::io::duplex(64 << 10);
        let server = tokio::spawn(async move {
            let config = Http2Config { max_streams: 1, ..Http2Config::default() };
            let mut held = Vec::new();
            let (_serving, serving) = watch::channel(());
            serve(ours, &config, Duration::from_secs(5), serving, |request| held.push(request)).await
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
}
