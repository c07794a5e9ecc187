//! The dialling end: TCP from inside the pod, TLS as the pod's identity, HTTP/2, and CONNECT requests.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use h2::client::{Builder, SendRequest};
use http::uri::Uri;
use http::{HeaderValue, Method, Request, StatusCode, Version};
use mesh::{Authority, Identity};
use rustls_pki_types::ServerName;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;

use super::forwarded::Forwarded;
use super::{BAGGAGE, ConnectError, FORWARDED, Http2Config, TRACEPARENT, Traceparent};
use crate::config::Timeouts;
use crate::gate::Link;
use crate::relay::Buffer;
use crate::served::Served;
use crate::socket::Dialer;
use crate::tls::HandshakeError;

/// Everything that two connections must have in common to share a tunnel.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct PeerKey {
    /// The start of the pod in whose netns we dial ([`Served::number`]).
    pub(crate) pod: u64,
    /// As whom we dial.
    pub(crate) source: Identity,
    /// The names of which the peer must show one.
    pub(crate) accepted: Arc<[String]>,
    /// Where to dial.
    pub(crate) next_hop: SocketAddr,
    /// The pod's address the tunnel starts from.
    pub(crate) source_address: IpAddr,
}

/// What a CONNECT request says.
#[derive(Debug, Clone)]
pub(crate) struct ConnectHead {
    pub(crate) authority: Authority,
    pub(crate) baggage: String,
    pub(crate) forwarded: Forwarded,
    pub(crate) traceparent: Traceparent,
}

/// What h2 says about the streams that a peer takes before the peer has said anything; no peer can say so much.
pub(super) const UNSAID: usize = usize::MAX - 1;

/// The part of an HTTP/2 connection that has to be driven.
pub(super) type Connection = h2::client::Connection<TlsStream<TcpStream>, Buffer>;

/// Dials peers.
pub(crate) struct Connector {
    pub(crate) http2: Http2Config,
    pub(crate) timeouts: Timeouts,
    pub(crate) dialer: Dialer,
}

impl Connector {
    /// Dials the peer of `key` from inside the pod and sets HTTP/2 up. Every step is bounded.
    pub(super) async fn dial(
        &self,
        key: &PeerKey,
        served: &Served,
    ) -> Result<(SendRequest<Buffer>, Connection, Link), ConnectError> {
        let config = served.user.client(&key.source, &key.accepted).await?;
        let (tcp, link) =
            self.dialer.to_network(served, key.next_hop).await.map_err(|error| match error {
                ConnectError::Timeout(limit) => ConnectError::Blocked(limit),
                error => error,
            })?;
        let name = ServerName::from(key.next_hop.ip());
        let tls = timeout(self.timeouts.tls_handshake, TlsConnector::from(config).connect(name, tcp))
            .await
            .map_err(|_| HandshakeError::Timeout(self.timeouts.tls_handshake))?
            .map_err(HandshakeError::from)?;
        let opening = Builder::new()
            .enable_push(false)
            .initial_window_size(self.http2.stream_window)
            .initial_connection_window_size(self.http2.connection_window)
            .max_frame_size(self.http2.frame_size)
            .max_header_list_size(self.http2.client_header_list)
            .initial_max_send_streams(UNSAID)
            .handshake::<_, Buffer>(tls);
        let limit = self.timeouts.http2_handshake;
        let (sender, connection) =
            timeout(limit, opening).await.map_err(|_| ConnectError::NoAnswer(limit))??;
        Ok((sender, connection, link))
    }
}

impl ConnectHead {
    /// The request, its headers in the order peers send them.
    pub(super) fn request(&self) -> Result<Request<()>, ConnectError> {
        let bad = || ConnectError::Authority(self.authority.to_string());
        let uri = Uri::builder().authority(self.authority.to_string()).build().map_err(|_| bad())?;
        let mut request = Request::new(());
        *request.method_mut() = Method::CONNECT;
        *request.uri_mut() = uri;
        *request.version_mut() = Version::HTTP_2;
        let values = [
            (BAGGAGE, self.baggage.clone()),
            (FORWARDED, self.forwarded.to_string()),
            (TRACEPARENT, self.traceparent.to_string()),
        ];
        for (name, value) in values {
            // A name the control plane made up cannot stop a connection: what cannot be sent is left out.
            if let Ok(value) = HeaderValue::from_str(&value) {
                request.headers_mut().insert(name, value);
            }
        }
        Ok(request)
    }
}

/// Judges the answer to a CONNECT request.
pub(super) fn accepted(status: StatusCode) -> Result<(), ConnectError> {
    if status == StatusCode::OK { Ok(()) } else { Err(ConnectError::Status(status)) }
}
