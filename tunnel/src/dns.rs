//! DNS queries of a pod: each is passed on to the resolver that the application asked, and its answer passed back.
//!
//! Invariant: the application's address is asked from inside the pod's netns, so that the resolver sees the pod. A query
//! that gets no answer in time is forgotten; the application asks again, as DNS over UDP has it. How many are under way is
//! bounded a pod: what comes beyond that is dropped, which one pod's flood does to itself alone.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use linux::datagram::{self, Arrived};
use tokio::io::Interest;
use tokio::net::UdpSocket;
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::pod::Pod;
use crate::served::Served;

/// The port of resolvers.
const PORT: u16 = 53;
/// Queries of one pod that may wait for their answers.
const MAX_PENDING: usize = 512;
/// How long an answer is waited for; stub resolvers ask again after 5 s.
const PATIENCE: Duration = Duration::from_secs(5);
/// The largest query that is taken; larger than any that is sent over UDP.
const LARGEST_QUERY: usize = 4096;
/// The largest answer over UDP.
const LARGEST_ANSWER: usize = 65_535;

/// Serves a DNS socket until the sender of `serving` is gone.
pub(crate) async fn serve(socket: std::net::UdpSocket, served: Arc<Served>) {
    let (pod, mut serving) = (&served.pod, served.serving.clone());
    let socket = match UdpSocket::from_std(socket) {
        Ok(socket) => Arc::new(socket),
        Err(error) => return tracing::error!(?pod, %error, "cannot wait for DNS queries of a pod"),
    };
    let pending = Arc::new(Semaphore::new(MAX_PENDING));
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
        let Ok(place) = Arc::clone(&pending).try_acquire_owned() else {
            tracing::debug!(?pod, "too many DNS queries at once, dropped");
            continue;
        };
        let Some(query) = buffer.get(..arrived.length).map(Vec::from) else { continue };
        let (socket, served) = (Arc::clone(&socket), Arc::clone(&served));
        tokio::spawn(async move {
            let _place = place;
            let pod = &served.pod;
            if let Err(error) = answer(&socket, pod, &arrived, &query).await {
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

async fn answer(socket: &UdpSocket, pod: &Pod, arrived: &Arrived, query: &[u8]) -> io::Result<()> {
    let resolver: IpAddr = pod
        .sockets
        .resolver(arrived.destination)
        .ok_or_else(|| io::Error::other("nobody knows which resolver it was for"))?;
    let resolver = SocketAddr::new(resolver, PORT);
    let upstream = UdpSocket::from_std(pod.sockets.to_resolver(resolver)?.into())?;
    upstream.connect(resolver).await?;
    upstream.send(query).await?;
    let mut reply = vec![0; LARGEST_ANSWER];
    let length = timeout(PATIENCE, upstream.recv(&mut reply)).await??;
    let Some(reply) = reply.get(..length) else { return Ok(()) };
    loop {
        socket.writable().await?;
        let sent = socket.try_io(Interest::WRITABLE, || {
            datagram::send(socket, reply, arrived.destination, arrived.source)
        });
        match sent {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            other => return other,
        }
    }
}
