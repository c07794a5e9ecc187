//! Relaying between sockets: its limits and ends one by one; and beside a plain relay, on schedules made up at random.

mod ends;
mod schedules;
mod stopped;
mod subjects;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};

use super::*;

/// A connection.
async fn pair() -> (TcpStream, TcpStream) {
    squeezed(None, None).await
}

/// One at whose ends the kernel buffers so many bytes, or as many as it thinks fit. Said before there is a connection: taken back
/// afterwards, the window that was promised makes the kernel pass on a few bytes each 200 ms, whoever relays.
async fn squeezed(near: Option<u32>, far: Option<u32>) -> (TcpStream, TcpStream) {
    let socket = |bytes: Option<u32>| {
        let socket = TcpSocket::new_v4().unwrap();
        socket.set_nodelay(true).unwrap();
        if let Some(bytes) = bytes {
            socket.set_send_buffer_size(bytes).unwrap();
            socket.set_recv_buffer_size(bytes).unwrap();
        }
        socket
    };
    let listener = socket(far);
    listener.bind("127.0.0.1:0".parse().unwrap()).unwrap();
    let listener = listener.listen(1).unwrap();
    let (near, far) = tokio::join!(socket(near).connect(listener.local_addr().unwrap()), listener.accept());
    (near.unwrap(), far.unwrap().0)
}

#[tokio::test]
async fn counts_each_direction_and_ends_when_both_have() {
    let ((mut app, near), (far, mut server)) = (pair().await, pair().await);
    let relay = tokio::spawn(async move {
        let counters = Counters::default();
        let end = run::<RelayError>(near, Far::Tcp(far), &counters, &Timeouts::default(), pending()).await;
        (end, counters.sent.bytes(), counters.received.bytes())
    });
    app.write_all(b"12345").await.unwrap();
    app.shutdown().await.unwrap();
    let mut got = Vec::new();
    server.read_to_end(&mut got).await.unwrap();
    assert_eq!(got, b"12345");
    server.write_all(b"123").await.unwrap();
    drop(server);
    got.clear();
    app.read_to_end(&mut got).await.unwrap();
    let (end, sent, received) = relay.await.unwrap();
    end.unwrap();
    assert_eq!((sent, received), (5, 3));
}

#[tokio::test]
async fn a_cut_resets_both_ends() {
    let ((mut app, near), (far, mut server)) = (pair().await, pair().await);
    let cut = std::future::ready(RelayError::StreamReset(Reason::CONNECT_ERROR));
    run(near, Far::Tcp(far), &Counters::default(), &Timeouts::default(), cut).await.unwrap_err();
    assert_eq!(app.read(&mut [0]).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    assert_eq!(server.read(&mut [0]).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

#[test]
fn a_cut_by_the_peer_is_told_from_a_reset_and_both_from_a_clean_end() {
    for (reason, reset) in [(CUT, Some(false)), (Reason::CONNECT_ERROR, Some(true)), (Reason::CANCEL, None)] {
        assert_eq!(ended(Ok(reason)).err().map(|error| error.is_reset()), reset, "{reason}");
    }
}

#[tokio::test]
async fn a_receiver_that_never_reads_is_cut_and_so_is_the_sender() {
    let ((mut app, near), (far, mut server)) = (pair().await, pair().await);
    let timeouts = Timeouts { stalled: Some(Duration::from_millis(200)), ..Timeouts::default() };
    let relay = tokio::spawn(async move {
        run::<RelayError>(near, Far::Tcp(far), &Counters::default(), &timeouts, pending()).await
    });
    let flood = async {
        let bytes = vec![7; 64 << 10];
        while app.write_all(&bytes).await.is_ok() {}
    };
    tokio::time::timeout(Duration::from_secs(60), flood).await.expect("the sender is still served");
    assert!(matches!(relay.await.unwrap(), Err(RelayError::Stalled(_))));
    let mut rest = Vec::new();
    assert_eq!(server.read_to_end(&mut rest).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn a_half_closed_pair_ends_when_nothing_follows() {
    let ((mut app, near), (far, mut server)) = (pair().await, pair().await);
    let timeouts = Timeouts { half_close: Some(Duration::from_millis(200)), ..Timeouts::default() };
    app.shutdown().await.unwrap();
    let counters = Counters::default();
    let end = run::<RelayError>(near, Far::Tcp(far), &counters, &timeouts, pending()).await;
    assert!(matches!(end, Err(RelayError::HalfClosed(_))), "{end:?}");
    assert_eq!(server.read(&mut [0]).await.unwrap(), 0);
    assert_eq!(app.read(&mut [0]).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
}

#[tokio::test]
async fn an_idle_relay_holds_no_buffer_and_is_small() {
    let (counters, limits) = (Counters::default(), Timeouts::default());
    let ((_app, near), (far, _server)) = (pair().await, pair().await);
    let relay = run::<RelayError>(near, Far::Tcp(far), &counters, &limits, pending());
    assert!(size_of_val(&relay) < 2048, "{}", size_of_val(&relay));
}
