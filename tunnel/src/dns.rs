//! DNS of captured pods: names of the mesh are answered from its state, all others by the resolver that the application asked.
//!
//! A query comes as a datagram ([`serve`]) or on a captured connection to port 53 ([`serve_connection`]). What becomes of it is
//! decided by pure functions of the snapshot and the pod's settings (`handler`, `resolve`, `find`); the resolver is asked from
//! inside the pod's netns, so that it sees the pod (`upstream`). Names that connections go to are resolved there, too
//! (`on_demand`).
//!
//! Invariants: every query gets an answer within 5 s, if only that the resolver failed; what one pod floods it loses itself, for
//! how many queries are under way is bounded a pod. A packet that makes no sense costs nobody else anything.

mod find;
mod handler;
mod host;
mod message;
mod metrics;
mod on_demand;
mod query;
mod resolve;
mod settings;
mod tcp;
#[cfg(test)]
mod tests;
mod upstream;

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use linux::datagram::{self, Arrived};
use tokio::io::Interest;
use tokio::net::UdpSocket;

pub(crate) use host::Host;
pub(crate) use metrics::DnsMetrics;
pub(crate) use on_demand::{Names, addresses_of};
pub(crate) use settings::PodSettings;
pub(crate) use tcp::{serve as serve_connection, takes};
#[cfg(feature = "fuzzing")]
pub(crate) use {
    find::Asker,
    handler::{Action as DnsAction, handle as handle_packet},
    message::is_answer,
    settings::Settings,
    tcp::judge as judge_connection,
};

use crate::scope::Scope;
pub(crate) use message::Transport;
use query::Way;

/// The port of resolvers.
pub(crate) const PORT: u16 = 53;
/// Queries of one pod that may wait for their answers.
pub(crate) const MAX_PENDING: usize = 512;
/// The largest query that is taken; larger than any that is sent over UDP.
const LARGEST_QUERY: usize = 4096;

/// Serves a DNS socket until the sender of `serving` is gone.
pub(crate) async fn serve(socket: std::net::UdpSocket, scope: Scope) {
    let (pod, mut serving) = (&scope.served.pod, scope.served.serving.clone());
    let socket = match UdpSocket::from_std(socket) {
        Ok(socket) => Arc::new(socket),
        Err(error) => return tracing::error!(?pod, %error, "cannot wait for DNS queries of a pod"),
    };
    let mut buffer = vec![0; LARGEST_QUERY];
    loop {
        let arrived = tokio::select! {
            // No value is ever sent: this resolves when the pod's handle is dropped.
            _ = serving.changed() => return,
            arrived = receive(&socket, &mut buffer) => arrived,
        };
        let arrived = match arrived {
            Ok(arrived) => arrived,
            // Of one datagram, such as the refusal of an answer that came too late; the next one is another matter.
            Err(error) => {
                tracing::debug!(?pod, %error, "DNS query lost");
                continue;
            }
        };
        let Ok(place) = Arc::clone(&scope.served.dns_places).try_acquire_owned() else {
            tracing::debug!(?pod, "too many DNS queries at once, dropped");
            continue;
        };
        let Some(packet) = buffer.get(..arrived.length).map(Vec::from) else { continue };
        let (socket, scope) = (Arc::clone(&socket), scope.clone());
        tokio::spawn(async move {
            let _place = place;
            if let Err(error) = answer(&socket, &scope, &arrived, &packet).await {
                let pod = &scope.served.pod;
                tracing::debug!(?pod, client = %arrived.source, %error, "DNS query not answered");
            }
        });
    }
}

async fn receive(socket: &UdpSocket, buffer: &mut [u8]) -> io::Result<Arrived> {
    loop {
        socket.readable().await?;
        match socket.try_io(Interest::READABLE, || datagram::receive(socket, buffer)) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            other => return other,
        }
    }
}

async fn answer(socket: &UdpSocket, scope: &Scope, arrived: &Arrived, packet: &[u8]) -> io::Result<()> {
    let resolver = scope.served.pod.sockets.resolver(arrived.destination);
    let resolver = resolver.ok_or_else(|| io::Error::other("nobody knows which resolver it was for"))?;
    let resolver = SocketAddr::new(resolver, PORT);
    let way = Way { client: arrived.source, resolver, transport: Transport::Udp };
    let Some(reply) = query::answer(scope, packet, way).await else { return Ok(()) };
    loop {
        socket.writable().await?;
        let sent = socket.try_io(Interest::WRITABLE, || {
            datagram::send(socket, &reply, arrived.destination, arrived.source)
        });
        match sent {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            other => return other,
        }
    }
}
