//! Port-forwarding, as API server and kubelet do it together: a websocket of `v4.channel.k8s.io`, in which the first byte of a message
//! names its channel: 0 has the bytes of the port, 1 what went wrong. Each begins with the port's number.
//!
//! Whose network namespace a pod's port is in only the test knows: it hands over who connects.

use std::io;
use std::net::TcpStream;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use futures_util::{SinkExt as _, StreamExt as _};
use http::{HeaderMap, HeaderValue, Response, StatusCode, header};
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::derive_accept_key;
use tokio_tungstenite::tungstenite::protocol::Role;

use crate::error::Refusal;

/// Connects to a port of a pod: its namespace, its name, the port.
pub(crate) type Dial = dyn Fn(&str, &str, u16) -> io::Result<TcpStream> + Send + Sync;

/// The protocol that is spoken, and all that is.
const PROTOCOL: &str = "v4.channel.k8s.io";
const DATA: u8 = 0;
const ERROR: u8 = 1;
/// Bytes of the port that are carried in one message at most.
const PIECE: usize = 32 * 1024;
/// How long a client may take to close what has ended.
const PATIENCE: Duration = Duration::from_secs(5);

/// A pod's port that is to be forwarded.
pub(crate) struct Wanted {
    pub(crate) dial: Arc<Dial>,
    pub(crate) namespace: String,
    pub(crate) pod: String,
    pub(crate) port: u16,
}

/// Switches to websockets, and forwards until one side ends it.
pub(crate) fn start(
    wanted: Wanted,
    headers: &HeaderMap,
    upgrade: Option<OnUpgrade>,
) -> Result<Response<Body>, Refusal> {
    let text = |name: header::HeaderName| headers.get(name).and_then(|value| value.to_str().ok());
    let protocols = text(header::SEC_WEBSOCKET_PROTOCOL).unwrap_or_default();
    if !protocols.split(',').any(|one| one.trim() == PROTOCOL) {
        return Err(Refusal::bad(format!("unable to upgrade: only {PROTOCOL} is spoken")));
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
            let _ = carry(socket, wanted).await;
        }
    });
    let mut response = Response::new(Body::empty());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    for (name, value) in [
        (header::CONNECTION, HeaderValue::from_static("Upgrade")),
        (header::UPGRADE, HeaderValue::from_static("websocket")),
        (header::SEC_WEBSOCKET_ACCEPT, accepted),
        (header::SEC_WEBSOCKET_PROTOCOL, HeaderValue::from_static(PROTOCOL)),
    ] {
        response.headers_mut().insert(name, value);
    }
    Ok(response)
}

fn message(channel: u8, bytes: &[u8]) -> Message {
    Message::Binary([&[channel], bytes].concat().into())
}

/// Ends a conversation in order: what the client has still said is read, for unread it would take with it what it was told.
async fn end<S>(mut socket: WebSocketStream<S>) -> anyhow::Result<()>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    socket.close(None).await?;
    let rest = async { while let Some(Ok(_)) = socket.next().await {} };
    // Whoever does not close by then has had its word.
    let _ = tokio::time::timeout(PATIENCE, rest).await;
    Ok(())
}

async fn carry<S>(mut socket: WebSocketStream<S>, wanted: Wanted) -> anyhow::Result<()>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin,
{
    let Wanted { dial, namespace, pod, port } = wanted;
    for channel in [DATA, ERROR] {
        socket.send(message(channel, &port.to_le_bytes())).await?;
    }
    let dialled = tokio::task::spawn_blocking(move || dial(&namespace, &pod, port)).await?;
    let stream = match dialled {
        Ok(stream) => stream,
        Err(error) => {
            let why = format!("error forwarding port {port}: {error}");
            socket.send(message(ERROR, why.as_bytes())).await?;
            return end(socket).await;
        }
    };
    stream.set_nonblocking(true)?;
    let (mut reader, mut writer) = tokio::net::TcpStream::from_std(stream)?.into_split();
    let mut buffer = vec![0; PIECE];
    loop {
        tokio::select! {
            said = socket.next() => match said {
                Some(Ok(Message::Binary(bytes))) => {
                    if let Some((&DATA, data)) = bytes.split_first() {
                        writer.write_all(data).await?;
                    }
                }
                Some(Ok(Message::Close(_))) | None => return Ok(()),
                Some(Ok(_)) => {}
                Some(Err(error)) => return Err(error.into()),
            },
            read = reader.read(&mut buffer) => match read? {
                0 => return end(socket).await,
                count => socket.send(message(DATA, buffer.get(..count).unwrap_or_default())).await?,
            },
        }
    }
}
