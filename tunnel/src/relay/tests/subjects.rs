//! What is compared: a plain relay, ours between sockets, and ours with a tunnel between two of it.

use std::future::pending;

use h2::{client, server};
use http::{Method, Request, Response};
use tokio::io::copy_bidirectional;
use tokio::net::TcpStream;

use super::ends::{Script, Seen, play};
use super::squeezed;
use crate::config::Timeouts;
use crate::hbone::HboneStream;
use crate::relay::{Buffer, Counters, Far, RelayError, run};

/// How the tunnel between two relays is made.
#[derive(Clone, Copy, Debug)]
pub(super) struct Tunnel {
    /// Bytes that a stream may have under way.
    pub(super) window: u32,
    /// Bytes of one frame at most.
    pub(super) frame: u32,
    /// Bytes that the connection takes before it has to wait.
    pub(super) pipe: usize,
}

/// Between two plain sockets, by the runtime's own relay, which copies through one buffer a direction and knows nothing of limits.
pub(super) async fn reference(near: &Script, far: &Script) -> [Seen; 2] {
    let ((app, mut ours), (mut theirs, server)) = ends(near, far).await;
    tokio::spawn(async move {
        if copy_bidirectional(&mut ours, &mut theirs).await.is_err() {
            crate::relay::reset(ours);
            crate::relay::reset(theirs);
        }
    });
    play((app, near), (server, far)).await
}

/// Between two plain sockets.
pub(super) async fn plain(near: &Script, far: &Script) -> [Seen; 2] {
    let ((app, ours), (theirs, server)) = ends(near, far).await;
    tokio::spawn(relay(ours, Far::Tcp(theirs)));
    play((app, near), (server, far)).await
}

/// Through a tunnel, with a relay at each end.
pub(super) async fn tunnelled(near: &Script, far: &Script, tunnel: Tunnel) -> [Seen; 2] {
    let ((app, ours), (theirs, server)) = ends(near, far).await;
    let (here, there) = streams(tunnel).await;
    tokio::spawn(relay(ours, Far::Stream(here)));
    tokio::spawn(relay(theirs, Far::Stream(there)));
    play((app, near), (server, far)).await
}

/// The connections of both ends, with what a relay has of each in the middle.
async fn ends(near: &Script, far: &Script) -> ((TcpStream, TcpStream), (TcpStream, TcpStream)) {
    (squeezed(near.buffer, None).await, squeezed(None, far.buffer).await)
}

pub(super) async fn relay(near: TcpStream, far: Far) {
    let _ = run::<RelayError>(near, far, &Counters::default(), &Timeouts::default(), pending()).await;
}

/// The two ends of one stream.
pub(super) async fn streams(tunnel: Tunnel) -> (HboneStream, HboneStream) {
    let (ours, theirs) = tokio::io::duplex(tunnel.pipe);
    let accepting = tokio::spawn(async move {
        let mut connection = server::Builder::new()
            .initial_window_size(tunnel.window)
            .initial_connection_window_size(tunnel.window.max(65_535))
            .max_frame_size(tunnel.frame)
            .handshake::<_, Buffer>(theirs)
            .await
            .unwrap();
        let (request, mut respond) = connection.accept().await.unwrap().unwrap();
        let send = respond.send_response(Response::new(()), false).unwrap();
        tokio::spawn(async move { while connection.accept().await.is_some() {} });
        HboneStream::bare(send, request.into_body())
    });
    let (sender, connection) = client::Builder::new()
        .initial_window_size(tunnel.window)
        .initial_connection_window_size(tunnel.window.max(65_535))
        .max_frame_size(tunnel.frame)
        .handshake::<_, Buffer>(ours)
        .await
        .unwrap();
    tokio::spawn(connection);
    let request = Request::builder().method(Method::CONNECT).uri("10.0.0.2:80").body(()).unwrap();
    let (response, send) = sender.ready().await.unwrap().send_request(request, false).unwrap();
    let recv = response.await.unwrap().into_body();
    (HboneStream::bare(send, recv), accepting.await.unwrap())
}
