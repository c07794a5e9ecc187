//! HBONE: a TCP connection as one HTTP/2 CONNECT stream inside mutual TLS.
//!
//! Owns both ends of the protocol and the pool of connections to peers; it decides nothing about where a
//! connection goes or whether it may. Invariant: a stream that is handed out has been answered with 200, so
//! the far application has accepted. A dead connection is noticed by PING within 30 seconds.

pub(crate) mod baggage;
pub(crate) mod client;
mod error;
pub(crate) mod forwarded;
mod inner;
mod keepalive;
pub(crate) mod pool;
pub(crate) mod server;
mod signs;
pub(crate) mod strain;
mod stream_io;
mod traceparent;
mod usage;

use std::sync::Arc;
use std::time::Duration;

use h2::{RecvStream, SendStream};

pub use error::ConnectError;
pub(crate) use traceparent::Traceparent;

use crate::relay::Buffer;
use crate::tls::Session;

/// Names of the headers of a CONNECT request.
pub(crate) const BAGGAGE: &str = "baggage";
pub(crate) const FORWARDED: &str = "forwarded";
pub(crate) const TRACEPARENT: &str = "traceparent";
/// The client's network, on the inner leg across networks alone.
pub(crate) const FORWARDED_NETWORK: &str = "x-forwarded-network";

/// What both ends announce and demand of an HTTP/2 connection.
///
/// The connection's window is larger than a stream's: were they equal, one reader that stops reading would
/// stop all the others at once. When several stop, it is widened by what they hold.
#[derive(Debug, Clone)]
pub struct Http2Config {
    /// Bytes a stream may have under way towards us. Default 4 MiB.
    pub stream_window: u32,
    /// Bytes all streams of a connection together may have under way. Default 16 MiB.
    pub connection_window: u32,
    /// Bytes that streams whose readers have stopped may hold of a connection beyond that, all together. Default 64 MiB.
    pub stalled_window: u32,
    /// Largest frame accepted. Default 1 MiB.
    pub frame_size: u32,
    /// Streams a client may have open at once. Default 200.
    pub max_streams: u32,
    /// Largest header list a server accepts, in bytes as HPACK counts them. Default 64 KiB.
    pub server_header_list: u32,
    /// Largest header list a client accepts. Default 16 KiB.
    pub client_header_list: u32,
    /// How often a PING is sent. Default 10 s.
    pub ping_interval: Duration,
    /// How long its answer may take before the connection counts as dead. Default 20 s.
    pub ping_timeout: Duration,
}

impl Default for Http2Config {
    fn default() -> Self {
        Self {
            stream_window: 4 << 20,
            connection_window: 16 << 20,
            stalled_window: 64 << 20,
            frame_size: 1 << 20,
            max_streams: 200,
            server_header_list: 64 << 10,
            client_header_list: 16 << 10,
            ping_interval: Duration::from_secs(10),
            ping_timeout: Duration::from_secs(20),
        }
    }
}

/// An established stream: bytes both ways, and its place in the pool if we opened it.
#[derive(Debug)]
pub(crate) struct HboneStream {
    pub(crate) send: SendStream<Buffer>,
    pub(crate) recv: RecvStream,
    /// The account of the tunnel that it shares; none if it is alone.
    pub(crate) strain: Option<strain::Member>,
    /// The session with the peer, if we opened the tunnel and certificates can be revoked.
    pub(crate) session: Option<Arc<Session>>,
    _lease: Option<pool::Lease>,
    /// Its place on the tunnel if the peer opened it.
    _in_use: Option<usage::InUse>,
}

#[cfg(test)]
impl HboneStream {
    /// One of no pool, whose tunnel is the test's affair.
    pub(crate) fn bare(send: SendStream<Buffer>, recv: RecvStream) -> Self {
        Self { send, recv, strain: None, session: None, _lease: None, _in_use: None }
    }
}
