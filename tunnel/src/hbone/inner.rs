//! The tunnel inside a tunnel, to a workload of another network: the outer one ends at that network's gateway, this one
//! at the workload, and the gateway sees nothing of it.
//!
//! One for each connection of a user, since the gateway chooses a workload for each stream of the outer tunnel. A task of
//! its own drives it; it ends with its one stream, or when the peer stops answering.

use std::net::SocketAddr;

use mesh::Authority;
use rustls_pki_types::{DnsName, ServerName};
use tokio::time::timeout;

use super::baggage::Baggage;
use super::client::{ConnectHead, Connection, Connector, SetUp, accepted};
use super::signs::Signs;
use super::stream_io::StreamIo;
use super::{ConnectError, HboneStream, Http2Config, keepalive};
use crate::tls::Client;

impl Connector {
    /// Opens a tunnel within `outer`, and the one stream on it. Every step is bounded.
    pub(super) async fn open_inside(
        &self,
        outer: HboneStream,
        client: &Client,
        gateway: SocketAddr,
        head: &ConnectHead,
    ) -> Result<(HboneStream, Baggage), ConnectError> {
        let request = head.request()?;
        let name = name_of(&head.authority, gateway);
        let around = outer.session.clone();
        let SetUp { sender, connection, session, signs } =
            self.set_up(client, name, StreamIo::new(outer), around).await?;
        tokio::spawn(drive(connection, signs, self.http2.clone()));
        let exchange = async {
            let (response, send) = sender.ready().await?.send_request(request, false)?;
            Ok::<_, h2::Error>((response.await?, send))
        };
        let limit = self.timeouts.answer;
        let (response, send) =
            timeout(limit, exchange).await.map_err(|_| ConnectError::NoAnswer(limit))??;
        let baggage = accepted(&response)?;
        Ok((
            HboneStream {
                send,
                recv: response.into_body(),
                strain: None,
                session,
                _lease: None,
                _in_use: None,
            },
            baggage,
        ))
    }
}

/// What TLS calls the peer. It is not sent and nothing is decided by it: sessions are remembered under it.
fn name_of(authority: &Authority, gateway: SocketAddr) -> ServerName<'static> {
    match authority {
        Authority::Address(address) => ServerName::from(address.ip()),
        Authority::Host { host, .. } => DnsName::try_from(host.to_string())
            .map_or_else(|_| ServerName::from(gateway.ip()), ServerName::DnsName),
    }
}

async fn drive(mut connection: Connection<StreamIo>, signs: Signs, http2: Http2Config) {
    let (ping, interval) = (connection.ping_pong(), http2.ping_interval);
    let lost = keepalive::peer_lost(ping, interval, http2.ping_timeout, signs);
    tokio::select! {
        // What has come is read before the peer is given up for not having sent it.
        biased;
        end = connection => if let Err(error) = end {
            tracing::debug!(%error, "tunnel to another network closed");
        },
        () = lost => tracing::debug!("tunnel to another network closed: the peer stopped answering"),
    }
}
