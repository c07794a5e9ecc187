//! The dialling end: TCP from inside the pod, TLS as the pod's identity, HTTP/2, and CONNECT requests.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;

use h2::client::{Builder, SendRequest};
use http::uri::Uri;
use http::{HeaderValue, Method, Request, Response, StatusCode, Version};
use mesh::{Authority, Identity};
use rustls_pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::client::TlsStream;

use super::baggage::Baggage;
use super::forwarded::Forwarded;
use super::signs::{Signs, Watched};
use super::{BAGGAGE, ConnectError, FORWARDED, FORWARDED_NETWORK, Http2Config, TRACEPARENT, Traceparent};
use crate::config::Timeouts;
use crate::gate::Link;
use crate::relay::Buffer;
use crate::served::Served;
use crate::socket::Dialer;
use crate::tls::{Client, HandshakeError, LastWords, ReadAhead, Session};

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
    /// The network of the client, where the peer is on another one.
    pub(crate) network: Option<Arc<str>>,
}

/// The part of an HTTP/2 connection that has to be driven.
pub(super) type Connection<T = ReadAhead<TcpStream>> =
    h2::client::Connection<Watched<LastWords<TlsStream<T>>>, Buffer>;

/// A tunnel that stands.
pub(super) struct SetUp<T> {
    pub(super) sender: SendRequest<Buffer>,
    pub(super) connection: Connection<T>,
    /// What comes on it.
    pub(super) signs: Signs,
    /// Ends it if the peer's certificate is revoked.
    pub(super) session: Option<Arc<Session>>,
}

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
    ) -> Result<(SetUp<ReadAhead<TcpStream>>, Link), ConnectError> {
        let client = served.user.client(&key.source, &key.accepted).await?;
        let (tcp, link) =
            self.dialer.to_network(served, key.next_hop).await.map_err(|error| match error {
                ConnectError::Timeout(limit) => ConnectError::Blocked(limit),
                error => error,
            })?;
        let name = ServerName::from(key.next_hop.ip());
        Ok((self.set_up(&client, name, ReadAhead::of(tcp), None).await?, link))
    }

    /// Sets TLS and HTTP/2 up over `io`, which may be inside of another session. Both steps are bounded.
    pub(super) async fn set_up<T: AsyncRead + AsyncWrite + Unpin>(
        &self,
        client: &Client,
        name: ServerName<'static>,
        io: T,
        outer: Option<Arc<Session>>,
    ) -> Result<SetUp<T>, ConnectError> {
        let tls = timeout(self.timeouts.tls_handshake, client.connect(name, io))
            .await
            .map_err(|_| HandshakeError::Timeout(self.timeouts.tls_handshake))??;
        let session = client.session(tls.get_ref().1, outer);
        let signs = Signs::default();
        let opening = Builder::new()
            .enable_push(false)
            .initial_window_size(self.http2.stream_window)
            .initial_connection_window_size(self.http2.connection_window)
            .max_frame_size(self.http2.frame_size)
            .max_header_list_size(self.http2.client_header_list)
            .handshake::<_, Buffer>(Watched::of(LastWords::of(tls), &signs));
        let limit = self.timeouts.http2_handshake;
        let opened = timeout(limit, opening).await.map_err(|_| ConnectError::NoAnswer(limit))?;
        let (sender, connection) = opened?;
        Ok(SetUp { sender, connection, signs, session })
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
            (BAGGAGE, Some(self.baggage.clone())),
            (FORWARDED, Some(self.forwarded.to_string())),
            (TRACEPARENT, Some(self.traceparent.to_string())),
            (FORWARDED_NETWORK, self.network.as_ref().map(ToString::to_string)),
        ];
        for (name, value) in values.into_iter().filter_map(|(name, value)| Some((name, value?))) {
            // A name the control plane made up cannot stop a connection: what cannot be sent is left out.
            if let Ok(value) = HeaderValue::from_str(&value) {
                request.headers_mut().insert(name, value);
            }
        }
        Ok(request)
    }
}

/// Judges the answer to a CONNECT request: who accepted, by their own words.
pub(super) fn accepted<T>(answer: &Response<T>) -> Result<Baggage, ConnectError> {
    if answer.status() != StatusCode::OK {
        return Err(ConnectError::Status(answer.status()));
    }
    let baggage = answer.headers().get(BAGGAGE).and_then(|value| value.to_str().ok());
    Ok(baggage.map(Baggage::parse).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_request_says_what_peers_say_in_their_order() {
        let head = |network: Option<&str>| ConnectHead {
            authority: "web.default.svc.cluster.local:80".parse().unwrap(),
            baggage: "k8s.namespace.name=default".into(),
            forwarded: Forwarded { client: "10.0.0.1:1025".parse().ok(), host: Some("web".into()) },
            traceparent: Traceparent::random(),
            network: network.map(Arc::from),
        };
        let request = head(None).request().unwrap();
        assert_eq!(
            (request.method(), request.uri().to_string()),
            (&Method::CONNECT, head(None).authority.to_string())
        );
        let names: Vec<_> = request.headers().keys().map(ToString::to_string).collect();
        assert_eq!(names, ["baggage", "forwarded", "traceparent"]);
        assert_eq!(request.headers()["forwarded"], "for=\"10.0.0.1:1025\";host=web");
        let request = head(Some("west")).request().unwrap();
        assert_eq!(request.headers()["x-forwarded-network"], "west");
        // The unnamed network is one, too.
        assert_eq!(head(Some("")).request().unwrap().headers()["x-forwarded-network"], "");
    }
}
