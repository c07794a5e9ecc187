//! Port-forwarding, as API server and kubelet do it together: a websocket of `v4.channel.k8s.io`, in which the first byte of a message
//! names its channel: 0 has the bytes of the port, 1 what went wrong. Each begins with the port's number.
//!
//! Whose network namespace a pod's port is in only the test knows: it hands over who connects.

use std::io;
use std::net::TcpStream;
use std::sync::Arc;

use axum::body::Body;
use futures_util::{SinkExt as _, StreamExt as _};
use http::{HeaderMap, Response};
use hyper::upgrade::OnUpgrade;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_tungstenite::tungstenite::Message;

use crate::error::Refusal;
use crate::websocket::{self, Socket, message};

/// Connects to a port of a pod: its namespace, its name, the port.
pub(crate) type Dial = dyn Fn(&str, &str, u16) -> io::Result<TcpStream> + Send + Sync;

/// The protocol that is spoken, and all that is.
const PROTOCOL: &str = "v4.channel.k8s.io";
const DATA: u8 = 0;
const ERROR: u8 = 1;
/// Bytes of the port that are carried in one message at most.
const PIECE: usize = 32 * 1024;

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
    websocket::switch(PROTOCOL, headers, upgrade, |socket| carry(socket, wanted))
}

async fn carry(mut socket: Socket, wanted: Wanted) -> anyhow::Result<()> {
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
            return websocket::end(socket).await;
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
                0 => return websocket::end(socket).await,
                count => socket.send(message(DATA, buffer.get(..count).unwrap_or_default())).await?,
            },
        }
    }
}
