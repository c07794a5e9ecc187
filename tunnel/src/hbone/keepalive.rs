//! Notices a dead connection: a PING now and then, whose answer must come in time.
//!
//! Invariant: a peer that is heard is not asked. That spares the question, and it keeps tunnels alive that are full both ways: as
//! long as the HTTP/2 library has a PING to send or to answer, and cannot since a DATA frame is under way before it, it reads
//! nothing. Two ends which ask at the same moment (their clocks start together) while each is in the middle of a frame that the
//! other does not read would wait for each other until both are given up.

use std::pin::pin;
use std::time::Duration;

use h2::{Ping, PingPong};
use tokio::time::{sleep, timeout};

use super::signs::Signs;

/// The part of the limit that is waited for at its end, anew: this end itself may not have run for a while (a paused machine, a starved
/// CPU), and what the peer has said meanwhile is read in it.
const LAST: u32 = 10;

/// Returns when the peer has stopped answering; with no `ping` it never does. It is asked within `interval` of the last of its
/// `signs`, and may take `limit`; whatever else comes from it meanwhile is a sign as well, behind which its answer may wait.
pub(super) async fn peer_lost(ping: Option<PingPong>, interval: Duration, limit: Duration, signs: Signs) {
    let Some(mut ping) = ping else { return std::future::pending().await };
    loop {
        // Two looks within the interval, so that a sign just before the first does not put the question off beyond it.
        let before = signs.count();
        sleep(interval / 2).await;
        if signs.count() != before {
            continue;
        }
        let (mut answer, mut warned) = (pin!(ping.ping(Ping::opaque())), false);
        loop {
            let before = signs.count();
            let last = limit / LAST;
            match timeout(if warned { last } else { limit - last }, &mut answer).await {
                Ok(Ok(_)) => break,
                Ok(Err(_)) => return,
                Err(_) if signs.count() != before => warned = false,
                Err(_) if warned => return,
                Err(_) => warned = true,
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use bytes::Bytes;
    use futures_util::FutureExt as _;
    use h2::{RecvStream, SendStream, client, server};
    use http::{Method, Request, Response};
    use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _, DuplexStream};
    use tokio::time::{Instant, advance};

    use super::super::signs::Watched;
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(10);
    const LIMIT: Duration = Duration::from_secs(20);
    const FRAME: usize = 60_000;
    /// Longer than the interval, so that it is asked.
    const RARELY: Duration = Duration::from_secs(15);

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

    const SETTINGS: &[u8] = b"\0\0\0\x04\0\0\0\0\0";
    const PREFACE: usize = 24;
    const PING: u8 = 6;
    const ACK: u8 = 1;

    /// Reads one frame: what it is, its flags and its payload.
    async fn frame(io: &mut (impl AsyncRead + Unpin)) -> std::io::Result<(u8, u8, Vec<u8>)> {
        let mut head = [0; 9];
        io.read_exact(&mut head).await?;
        let [high, middle, low, kind, flags, ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, high, middle, low]) as usize];
        io.read_exact(&mut payload).await?;
        Ok((kind, flags, payload))
    }

    type Client = (client::SendRequest<Bytes>, client::Connection<Watched<DuplexStream>>, Signs);

    /// Our end of a connection to such a peer.
    async fn facing<F>(peer: impl FnOnce(DuplexStream) -> F) -> Client
    where
        F: Future<Output = ()> + Send + 'static,
    {
        let (ours, theirs) = tokio::io::duplex(1 << 16);
        tokio::spawn(peer(theirs));
        let signs = Signs::default();
        let (sender, connection) = client::handshake(Watched::of(ours, &signs)).await.unwrap();
        (sender, connection, signs)
    }

    /// Answers no PING, and goes on saying something.
    async fn talk(mut io: DuplexStream) {
        io.write_all(SETTINGS).await.unwrap();
        io.read_exact(&mut [0; PREFACE]).await.unwrap();
        let (mut read, mut write) = tokio::io::split(io);
        let listen = async { while frame(&mut read).await.is_ok() {} };
        let say = async {
            loop {
                sleep(RARELY).await;
                // WINDOW_UPDATE of the connection, by 1.
                write.write_all(b"\0\0\x04\x08\0\0\0\0\0\0\0\0\x01").await.unwrap();
            }
        };
        tokio::select! { () = listen => {} () = say => {} }
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_is_heard_is_not_lost() {
        let (_sender, mut connection, signs) = facing(talk).await;
        let lost = peer_lost(connection.ping_pong(), INTERVAL, LIMIT, signs);
        let connection = tokio::spawn(connection);
        assert!(timeout(50 * LIMIT, lost).await.is_err(), "it is heard every {RARELY:?}");
        assert!(!connection.is_finished());
    }

    /// Answers PINGs.
    async fn answer(mut io: DuplexStream) {
        io.write_all(SETTINGS).await.unwrap();
        io.read_exact(&mut [0; PREFACE]).await.unwrap();
        while let Ok((kind, flags, payload)) = frame(&mut io).await {
            if kind == PING && flags & ACK == 0 {
                io.write_all(&[0, 0, 8, PING, ACK, 0, 0, 0, 0]).await.unwrap();
                io.write_all(&payload).await.unwrap();
            }
        }
    }

    /// A machine that was paused finds the limit over and the answer there, and looks at the clock first.
    #[tokio::test(start_paused = true)]
    async fn a_pause_of_ones_own_is_not_the_peers() {
        let (_sender, mut connection, signs) = facing(answer).await;
        let mut lost = pin!(peer_lost(connection.ping_pong(), INTERVAL, LIMIT, signs));
        for _ in 0..3 {
            for _ in 0..4 {
                assert!(lost.as_mut().now_or_never().is_none());
                assert!((&mut connection).now_or_never().is_none());
                advance(INTERVAL / 2).await;
            }
            // It has been asked, or is; its answer stands in the pipe.
            assert!(lost.as_mut().now_or_never().is_none());
            assert!((&mut connection).now_or_never().is_none());
            for _ in 0..10 {
                tokio::task::yield_now().await;
            }
            advance(10 * LIMIT).await;
            assert!(lost.as_mut().now_or_never().is_none(), "nobody has looked whether it answered");
        }
    }

    async fn silent(mut io: DuplexStream) {
        let mut scratch = [0; 64];
        while io.read(&mut scratch).await.is_ok_and(|count| count > 0) {}
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_keeps_silent_is_lost_within_interval_and_limit() {
        let (_sender, mut connection, signs) = facing(silent).await;
        let lost = peer_lost(connection.ping_pong(), INTERVAL, LIMIT, signs);
        tokio::spawn(connection);
        let began = Instant::now();
        lost.await;
        assert!(began.elapsed() <= INTERVAL + LIMIT, "{:?}", began.elapsed());
    }
}
