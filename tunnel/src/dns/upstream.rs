//! Asking the resolver that an application asked, from inside its pod's netns.
//!
//! Invariants: a packet goes on as it came, and its answer comes back as it was given; what arrives and is no answer to it is
//! passed over, so that nobody can slip one in; and there is an answer or an error within [`PATIENCE`].

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf as _, BufMut as _, BytesMut};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpStream, UdpSocket};
use tokio::time::timeout;

use super::message::{self, Transport};
use crate::hbone::HboneStream;
use crate::outbound::{self, ReachError};
use crate::pod::PodSockets;
use crate::relay::{Buffer, Far};
use crate::scope::Scope;

/// How long an application waits at most: less than the 5 s after which libraries try again, so that they learn of the failure
/// and turn to their next server.
pub(super) const PATIENCE: Duration = Duration::from_millis(4500);
/// When a datagram is sent once more, since one may get lost.
const AGAIN: Duration = Duration::from_millis(1500);
/// How often a datagram is sent.
const ATTEMPTS: u32 = 3;
/// The largest answer over UDP.
const LARGEST: usize = 65_535;

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum UpstreamError {
    /// The socket, or what the network says of it.
    #[error("the resolver cannot be asked: {0}")]
    Io(#[from] io::Error),
    /// There is no connection to it.
    #[error("the resolver cannot be reached: {0}")]
    Reach(#[from] ReachError),
    /// The tunnel to it broke.
    #[error("the tunnel to the resolver broke: {0}")]
    Tunnel(#[from] h2::Error),
    /// It closed the connection.
    #[error("the resolver closed the connection without an answer")]
    Closed,
    /// It answers something else.
    #[error("what the resolver sent is no answer to the question")]
    Stranger,
    /// It says nothing.
    #[error("the resolver did not answer within {0:?}")]
    Silent(Duration),
    /// The query is too long for a message.
    #[error("a query of {0} bytes is longer than a message can be")]
    TooLong(usize),
}

/// Asks for a client that asked by `transport`. What is cut short over UDP is asked for again over TCP if the client is there
/// to take it.
pub(crate) async fn ask(
    scope: &Scope,
    client: SocketAddr,
    resolver: SocketAddr,
    packet: &[u8],
    transport: Transport,
) -> Result<Vec<u8>, UpstreamError> {
    let asking = async {
        let sockets = &scope.served.pod.sockets;
        if transport == Transport::Udp {
            return over_udp(sockets, resolver, packet, ATTEMPTS).await;
        }
        // A resolver may well serve TCP alone: it gets one datagram.
        match over_udp(sockets, resolver, packet, 1).await {
            Ok(reply) if !message::is_truncated(&reply) => Ok(reply),
            Ok(_) | Err(_) => over_tcp(scope, client, resolver, packet).await,
        }
    };
    timeout(PATIENCE, asking).await.unwrap_or(Err(UpstreamError::Silent(PATIENCE)))
}

/// Sends a datagram up to `attempts` times and waits for the answer.
pub(super) async fn over_udp(
    sockets: &Arc<dyn PodSockets>,
    resolver: SocketAddr,
    packet: &[u8],
    attempts: u32,
) -> Result<Vec<u8>, UpstreamError> {
    let socket = UdpSocket::from_std(sockets.to_resolver(resolver)?.into())?;
    // Connected: only the resolver itself gets through, from the very port that was asked.
    socket.connect(sockets.locate(resolver)).await?;
    for _ in 0..attempts {
        socket.send(packet).await?;
        if let Ok(reply) = timeout(AGAIN, answer_to(&socket, packet)).await {
            return reply;
        }
    }
    Err(UpstreamError::Silent(AGAIN * attempts))
}

async fn answer_to(socket: &UdpSocket, packet: &[u8]) -> Result<Vec<u8>, UpstreamError> {
    loop {
        socket.readable().await?;
        // Room for the largest answer is held only now that there is one.
        let mut reply = Vec::with_capacity(LARGEST);
        match socket.try_recv_buf(&mut reply) {
            Ok(_) if message::is_answer(&reply, packet) => {
                reply.shrink_to_fit();
                return Ok(reply);
            }
            Ok(_) => tracing::debug!("a datagram that is no answer to the question is passed over"),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
}

/// Asks over a connection of its own, which goes the way that one of the pod's would: a resolver in the mesh gets a tunnel.
async fn over_tcp(
    scope: &Scope,
    client: SocketAddr,
    resolver: SocketAddr,
    packet: &[u8],
) -> Result<Vec<u8>, UpstreamError> {
    let length = u16::try_from(packet.len()).map_err(|_| UpstreamError::TooLong(packet.len()))?;
    let mut query = BytesMut::with_capacity(2 + packet.len());
    query.put_u16(length);
    query.put_slice(packet);
    let (far, _link) = Box::pin(outbound::reach(scope, client, resolver)).await?;
    let reply = match far {
        Far::Tcp(stream) => exchange(stream, &query).await?,
        Far::Stream(stream) => exchange_in_tunnel(stream, &query).await?,
    };
    if message::is_answer(&reply, packet) { Ok(reply) } else { Err(UpstreamError::Stranger) }
}

async fn exchange(mut stream: TcpStream, query: &[u8]) -> Result<Vec<u8>, UpstreamError> {
    stream.write_all(query).await?;
    let length = stream.read_u16().await?;
    let mut reply = vec![0; usize::from(length)];
    stream.read_exact(&mut reply).await?;
    Ok(reply)
}

async fn exchange_in_tunnel(mut stream: HboneStream, query: &[u8]) -> Result<Vec<u8>, UpstreamError> {
    stream.send.send_data(Buffer::copy_of(query), false)?;
    let mut read = BytesMut::new();
    loop {
        if let Some(length) = read.first_chunk::<2>() {
            let end = 2 + usize::from(u16::from_be_bytes(*length));
            if read.len() >= end {
                read.truncate(end);
                read.advance(2);
                return Ok(read.to_vec());
            }
        }
        let data = stream.recv.data().await.ok_or(UpstreamError::Closed)??;
        stream.recv.flow_control().release_capacity(data.len())?;
        read.extend_from_slice(&data);
    }
}
