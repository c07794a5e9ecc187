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

/// The next bytes; `None` when the peer has finished sending. One task at a time may wait for them.
pub(super) async fn read(stream: &TcpStream) -> io::Result<Option<Buffer>> {
    poll_fn(|cx| poll_read(stream, cx)).await
}

/// The same as a step: what a relay waits with is stored in it for as long as it lives, and this takes no room.
fn poll_read(stream: &TcpStream, cx: &mut Context<'_>) -> Poll<io::Result<Option<Buffer>>> {
    loop {
        ready!(stream.poll_read_ready(cx))?;
        let mut took_all = false;
        let read: io::Result<Buffer> = Buffer::fill(|into| {
            let count = stream.try_read(into)?;
            took_all = count < into.len();
            Ok(count)
        });
        match read {
            Ok(buffer) if buffer.is_empty() => return Poll::Ready(Ok(None)),
            Ok(buffer) => {
                if took_all {
                    wait_for_more(stream);
                }
                return Poll::Ready(Ok(Some(buffer)));
            }
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Poll::Ready(Err(error)),
        }
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
