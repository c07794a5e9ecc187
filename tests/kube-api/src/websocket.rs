//! The switch from a request to a websocket, for what is not answered at once.

use std::future::Future;
use std::time::Duration;

use axum::body::Body;
use futures_util::StreamExt as _;
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use hyper::upgrade::{OnUpgrade, Upgraded};
use hyper_util::rt::TokioIo;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::frame::coding::CloseCode;
use tokio_tungstenite::tungstenite::protocol::{CloseFrame, Role};
use tokio_tungstenite::tungstenite::{Message, Utf8Bytes};

use crate::error::Refusal;

/// One that speaks with a client.
pub(crate) type Socket = WebSocketStream<TokioIo<Upgraded>>;

/// How long a client may take to close what has ended.
const PATIENCE: Duration = Duration::from_secs(5);

/// Switches to a protocol and hands the socket over; a client that does not offer it is refused.
pub(crate) fn switch<F>(
    protocol: &'static str,
    headers: &HeaderMap,
    upgrade: Option<OnUpgrade>,
    serve: impl FnOnce(Socket) -> F + Send + 'static,
) -> Result<Response<Body>, Refusal>
where
    F: Future<Output = anyhow::Result<()>> + Send,
{
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let protocols = text(header::SEC_WEBSOCKET_PROTOCOL).unwrap_or_default();
    if !protocols.split(',').any(|one| one.trim() == protocol) {
        return Err(Refusal::bad(format!("unable to upgrade: only {protocol} is spoken")));
    }
    let (Some(key), Some(upgrade)) = (text(header::SEC_WEBSOCKET_KEY), upgrade) else {
        return Err(Refusal::bad("Upgrade request required"));
    };
    let accepted = derive_accept_key(key.as_bytes());
    let accepted = HeaderValue::from_str(&accepted).map_err(|error| Refusal::bad(error.to_string()))?;
    tokio::spawn(async move {
        // Whoever asked sees how it ends.
        if let Ok(upgraded) = upgrade.await {
            let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
            let _ = serve(socket).await;
        }
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    for (name, value) in [
        (header::CONNECTION, HeaderValue::from_static("Upgrade")),
        (header::UPGRADE, HeaderValue::from_static("websocket")),
        (header::SEC_WEBSOCKET_ACCEPT, accepted),
        (header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(protocol)),
    ] {
        response.headers_mut().insert(name, value);
    }
    Ok(response)
}

/// A message of a channel.
pub(crate) fn message(channel: u8, bytes: &[u8]) -> Message {
    Message::Binary([&[channel], bytes].concat().into())
}

/// Ends a conversation in order: what the client has still said is read, for unread it would take with it what it was told.
pub(crate) async fn end(mut socket: Socket) -> anyhow::Result<()> {
    let normal = CloseFrame { code: CloseCode::Normal, reason: Utf8Bytes::default() };
    socket.close(Some(normal)).await?;
    let rest = async { while let Some(Ok(_)) = socket.next().await {} };
    // Whoever does not close by then has had its word.
    let _ = tokio::time::timeout(PATIENCE, rest).await;
    Ok(())
}
