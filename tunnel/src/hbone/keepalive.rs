//! Notices a dead connection: a PING now and then, whose answer must come in time.
//!
//! Invariant: a peer that is heard is not asked. That spares the question, and it keeps tunnels alive that are full both ways: as
//! long as the HTTP/2 library has a PING to send or to answer, and cannot since a DATA frame is under way before it, it reads
//! nothing. Two ends which ask at the same moment (their clocks start together) while each is in the middle of a frame that the
//! other does not read would wait for each other until both are given up.

use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::time::{sleep, timeout};

use super::signs::Signs;

/// Returns when the peer has stopped answering; with no `ping` it never does. It is asked within `interval` of the last of its
/// `signs`, and may take `limit`.
pub(super) async fn peer_lost(ping: Option<PingPong>, interval: Duration, limit: Duration, signs: Signs) {
    let Some(mut ping) = ping else { return std::future::pending().await };
    loop {
        // Two looks within the interval, so that a sign just before the first does not put the question off beyond it.
        let before = signs.count();
        sleep(interval / 2).await;
        if signs.count() != before {
            continue;
        }
        match timeout(limit, ping.ping(Ping::opaque())).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => return,
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use h2::{RecvStream, SendStream, client, server};
    use http::{Method, Request, Response};
    use tokio::io::{AsyncReadExt, DuplexStream};
    use tokio::time::{Instant, advance};

    use super::super::signs::Watched;
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);
    const LIMIT: Duration = Duration::from_secs(20);
    const FRAME: usize = 60_000;

    type Ends = (SendStream<Bytes>, RecvStream);

    /// Sends what takes several intervals, and reads as much.
    async fn flood((mut send, mut recv): Ends, tells_the_time: bool) {
        let write = async {
            for number in 0..400 {
                send.reserve_capacity(FRAME);
                while send.capacity() == 0 {
                    std::future::poll_fn(|cx| send.poll_capacity(cx)).await.unwrap().unwrap();
                }
                send.send_data(Bytes::from_static(&[7; FRAME]), number == 399).unwrap();
                if tells_the_time && number % 20 == 19 {
                    advance(INTERVAL / 2).await;
                }
            }
        };
        let read = async {
            let mut came = 0;
            while let Some(data) = recv.data().await {
                let length = data.unwrap().len();
                came += length;
                recv.flow_control().release_capacity(length).unwrap();
            }
            assert_eq!(came, 400 * FRAME);
        };
        tokio::join!(write, read);
    }

    /// Both ends of a stream, on a connection that holds less than a frame; both are driven, and look after each other.
    async fn tunnel() -> (Ends, Ends) {
        let (ours, theirs) = tokio::io::duplex(FRAME / 8);
        let accepting = tokio::spawn(async move {
            let signs = Signs::default();
            let mut connection = server::Builder::new()
                .initial_window_size(1 << 22)
                .initial_connection_window_size(1 << 22)
                .max_frame_size(1 << 20)
                .handshake::<_, Bytes>(Watched::of(theirs, &signs))
                .await
                .unwrap();
            let (request, mut respond) = connection.accept().await.unwrap().unwrap();
            let send = respond.send_response(Response::new(()), false).unwrap();
            let lost = peer_lost(connection.ping_pong(), INTERVAL, LIMIT, signs);
            tokio::spawn(async move {
                tokio::select! {
                    () = lost => panic!("the client is lost"),
                    () = async { while connection.accept().await.is_some() {} } => {}
                }
            });
            (send, request.into_body())
        });
        let signs = Signs::default();
        let (sender, mut connection) = client::Builder::new()
            .initial_window_size(1 << 22)
            .initial_connection_window_size(1 << 22)
            .max_frame_size(1 << 20)
            .handshake::<_, Bytes>(Watched::of(ours, &signs))
            .await
            .unwrap();
        let lost = peer_lost(connection.ping_pong(), INTERVAL, LIMIT, signs);
        tokio::spawn(async move {
            tokio::select! {
                () = lost => panic!("the server is lost"),
                end = connection => end.unwrap(),
            }
        });
        let request = Request::builder().method(Method::CONNECT).uri("10.0.0.2:80").body(()).unwrap();
        let (response, send) = sender.ready().await.unwrap().send_request(request, false).unwrap();
        let recv = response.await.unwrap().into_body();
        ((send, recv), accepting.await.unwrap())
    }

    #[tokio::test(start_paused = true)]
    async fn a_tunnel_that_is_full_both_ways_does_not_lock_up() {
        let (here, there) = tunnel().await;
        let began = Instant::now();
        let both = async { tokio::join!(flood(here, true), flood(there, false)) };
        // All time that passes is told; if both were waiting for each other, the limit would pass by itself.
        timeout(100 * LIMIT, both).await.expect("both are done");
        assert!(began.elapsed() >= 9 * INTERVAL && began.elapsed() < 11 * INTERVAL, "{:?}", began.elapsed());
    }

    async fn silent(mut io: DuplexStream) {
        let mut scratch = [0; 64];
        while io.read(&mut scratch).await.is_ok_and(|count| count > 0) {}
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_keeps_silent_is_lost_within_interval_and_limit() {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        tokio::spawn(silent(theirs));
        let signs = Signs::default();
        let (_sender, mut connection) = client::handshake(Watched::of(ours, &signs)).await.unwrap();
        let lost = peer_lost(connection.ping_pong(), INTERVAL, LIMIT, signs);
        tokio::spawn(connection);
        let began = Instant::now();
        lost.await;
        assert!(began.elapsed() <= INTERVAL + LIMIT, "{:?}", began.elapsed());
    }
}
