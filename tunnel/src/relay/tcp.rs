//! Reading, writing and ending a plain TCP socket, without holding a buffer while nothing comes.

use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::net::Shutdown;
use std::os::fd::AsFd;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Buf;
use socket2::SockRef;
use tokio::io::Interest;
use tokio::net::TcpStream;

use super::{Buffer, Lane};

/// What a read brought.
#[derive(Debug)]
pub(super) struct Read {
    /// The next bytes; empty only if there is an end.
    pub(super) bytes: Buffer,
    /// What follows them, if that is known: the peer has finished sending, or the connection has failed.
    pub(super) end: Option<io::Result<()>>,
}

/// The next bytes, and with them the end if it has come already. One task at a time may wait for them.
pub(super) async fn read(stream: &TcpStream) -> io::Result<Read> {
    poll_fn(|cx| poll_read(stream, cx)).await
}

/// The same as a step: what a relay waits with is stored in it for as long as it lives, and this takes no room.
fn poll_read(stream: &TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<Read>> {
    loop {
        ready!(stream.poll_read_ready(cx))?;
        let mut end = None;
        let read: io::Result<Buffer> = Buffer::fill(|into| {
            let count = stream.try_read(into)?;
            if count == 0 {
                end = Some(Ok(()));
            } else if let Some(room) = into.get_mut(count..).filter(|room| !room.is_empty()) {
                wait_for_more(stream);
                let (more, ended) = rest(stream, room, cx);
                end = ended;
                return Ok(count + more);
            }
            Ok(count)
        });
        match read {
            Ok(bytes) => return Poll::Ready(Ok(Read { bytes, end })),
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Poll::Ready(Err(error)),
        }
    }
}

/// What is left to read when all that had come has been read: an end, if the poller has told of one. Whoever sends its last bytes and
/// closes is the rule, and the two are then passed on as one.
fn rest(stream: &TcpStream, room: &mut [u8], cx: &mut Context<'_>) -> (usize, Option<io::Result<()>>) {
    // Nothing but an end is left that it could be ready with.
    if stream.poll_read_ready(cx).is_pending() {
        return (0, None);
    }
    match stream.try_read(room) {
        Ok(0) => (0, Some(Ok(()))),
        Ok(count) => (count, None),
        Err(error) if error.kind() == ErrorKind::WouldBlock => (0, None),
        Err(error) => (0, Some(Err(error))),
    }
}

/// Notes that nothing is left to read until the poller says so. It says so once for whatever comes after it was asked last, be it
/// bytes or an end (epoll(7), `EPOLLET`), so a read that found less than it had room for need not be followed by one that finds nothing.
fn wait_for_more(stream: &TcpStream) {
    let nothing = || Err::<(), _>(ErrorKind::WouldBlock.into());
    // What it returns is what it was told.
    let _ = stream.try_io(Interest::READABLE, nothing);
}

/// Writes all of `bytes`, waiting for room as often as needed.
pub(crate) async fn write(stream: &TcpStream, bytes: impl Buf) -> io::Result<()> {
    pass(stream, bytes, &Lane::default()).await
}

/// The same, noting in `lane` how it goes. One task at a time may wait for room.
pub(super) async fn pass(stream: &TcpStream, mut bytes: impl Buf, lane: &Lane) -> io::Result<()> {
    poll_fn(|cx| {
        loop {
            fit(stream, &mut bytes, lane)?;
            if !bytes.has_remaining() {
                return Poll::Ready(Ok(()));
            }
            ready!(stream.poll_write_ready(cx))?;
        }
    })
    .await
}

/// Writes as many of the `bytes` as there is room for now.
pub(super) fn fit(stream: &TcpStream, bytes: &mut impl Buf, lane: &Lane) -> io::Result<()> {
    while bytes.has_remaining() {
        match stream.try_write(bytes.chunk()) {
            Ok(0) => return Err(ErrorKind::WriteZero.into()),
            Ok(count) => {
                bytes.advance(count);
                lane.moved();
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                lane.blocked();
                return Ok(());
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Says that nothing more will be sent. A peer that is gone already needs no telling.
pub(super) fn finish(stream: &TcpStream) -> io::Result<()> {
    match SockRef::from(stream).shutdown(Shutdown::Write) {
        Err(error) if error.kind() == ErrorKind::NotConnected => Ok(()),
        other => other,
    }
}

/// Waits until the connection is reset; for when nothing is left to read from it.
pub(super) async fn broken(stream: &TcpStream) -> io::Error {
    loop {
        if let Err(error) = stream.ready(Interest::ERROR).await {
            return error;
        }
        let pending = stream.try_io(Interest::ERROR, || {
            SockRef::from(stream).take_error()?.ok_or_else(|| ErrorKind::WouldBlock.into())
        });
        match pending {
            Ok(error) => return error,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return error,
        }
    }
}

/// Waits until the connection is reset, and leaves it to whoever reads next to find that.
pub(crate) async fn reset_by_peer(stream: &TcpStream) {
    // An error in waiting is one that nothing more can be waited for with.
    while stream.ready(Interest::ERROR).await.is_ok_and(|ready| !ready.is_error()) {}
}

/// Closes with a RST: whatever is unsent is thrown away, and the peer knows that it was cut.
pub(crate) fn reset(stream: impl AsFd) {
    // Without the option the close is still a close; there is nobody to tell of a failure here.
    let _ = SockRef::from(&stream.as_fd()).set_linger(Some(Duration::ZERO));
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;
    use tokio::net::TcpListener;

    use super::*;

    async fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("[::1]:0").await.unwrap();
        let (near, far) = tokio::join!(TcpStream::connect(listener.local_addr().unwrap()), listener.accept());
        (near.unwrap(), far.unwrap().0)
    }

    #[tokio::test]
    async fn an_end_comes_with_the_bytes_before_it_if_it_is_there() {
        let (near, mut far) = pair().await;
        far.write_all(b"first").await.unwrap();
        let Read { bytes, end } = read(&near).await.unwrap();
        assert!(bytes.chunk() == b"first" && end.is_none(), "{end:?}");
        far.write_all(b"last").await.unwrap();
        far.shutdown().await.unwrap();
        let Read { bytes, end } = read(&near).await.unwrap();
        assert!(bytes.chunk() == b"last" && matches!(end, Some(Ok(()))), "{end:?}");
    }

    #[tokio::test]
    async fn an_end_alone_comes_without_bytes() {
        let (near, mut far) = pair().await;
        far.shutdown().await.unwrap();
        let Read { bytes, end } = read(&near).await.unwrap();
        assert!(bytes.is_empty() && matches!(end, Some(Ok(()))), "{end:?}");
    }

    #[tokio::test]
    async fn a_reset_comes_with_the_bytes_before_it_and_stays_one() {
        let (near, mut far) = pair().await;
        far.write_all(b"last").await.unwrap();
        reset(&far);
        drop(far);
        let Read { bytes, end } = read(&near).await.unwrap();
        assert_eq!(bytes.chunk(), b"last");
        assert_eq!(end.unwrap().unwrap_err().kind(), ErrorKind::ConnectionReset);
    }
}
