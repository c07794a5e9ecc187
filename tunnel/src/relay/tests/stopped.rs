//! A reader that has stopped, and a peer that goes on with one small frame after the other.

use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::squeezed;
use super::subjects::{Tunnel, relay, streams};
use crate::relay::{Buffer, Far};

const LIMIT: Duration = Duration::from_secs(60);
/// More than the HTTP/2 library lets wait on a connection: it counts 256 bytes for each, and allows half the connection's window.
const FRAMES: usize = 3_000;

/// What waits for one reader ends no tunnel: the frames of another stream come all the while, and in the end those of the first.
#[tokio::test]
async fn small_frames_for_a_reader_that_has_stopped_leave_the_tunnel_whole() {
    let tunnel = Tunnel { window: 1 << 17, frame: 1 << 14, pipe: 64 << 10 };
    let (mut here, there) = streams(tunnel).await;
    let (theirs, mut server) = squeezed(Some(4 << 10), Some(4 << 10)).await;
    tokio::spawn(relay(theirs, Far::Stream(there)));
    let frame = |number: usize| [number as u8, (number >> 8) as u8, 7, 7, 7, 7];
    for number in 0..FRAMES {
        here.send.send_data(Buffer::copy_of(&frame(number)), false).expect("the tunnel stands");
        // One after the other, as from an application that writes a line now and then.
        tokio::task::yield_now().await;
    }
    let mut first = [0; 6];
    timeout(LIMIT, server.read_exact(&mut first)).await.unwrap().unwrap();
    assert_eq!(first, frame(0));
    here.send.send_data(Buffer::default(), true).expect("the tunnel still stands");
    let mut rest = Vec::new();
    timeout(LIMIT, server.read_to_end(&mut rest)).await.unwrap().unwrap();
    let expected: Vec<u8> = (1..FRAMES).flat_map(frame).collect();
    assert!(rest == expected, "{} bytes of {}", rest.len(), expected.len());
}

/// The relay ends at once, and not when the reader goes on.
#[tokio::test]
async fn a_reset_overtakes_what_waits() {
    let (mut here, there) = streams(Tunnel { window: 1 << 17, frame: 1 << 14, pipe: 64 << 10 }).await;
    let (theirs, mut server) = squeezed(Some(4 << 10), Some(4 << 10)).await;
    let relay = tokio::spawn(relay(theirs, Far::Stream(there)));
    // The other direction is over, so that it cannot be the one that hears of it.
    server.shutdown().await.unwrap();
    assert!(timeout(LIMIT, here.recv.data()).await.unwrap().is_none_or(|data| data.unwrap().is_empty()));
    here.send.send_data(Buffer::copy_of(&[7; 60_000]), false).unwrap();
    for _ in 0..1_000 {
        tokio::task::yield_now().await;
    }
    here.send.send_reset(h2::Reason::CONNECT_ERROR);
    timeout(LIMIT, relay).await.expect("the relay ends though its reader has stopped").unwrap();
    let mut came = Vec::new();
    let error = server.read_to_end(&mut came).await.expect_err("a reset is no end");
    assert_eq!(error.kind(), std::io::ErrorKind::ConnectionReset);
    assert!(came.len() < 60_000, "{} bytes had room", came.len());
}
