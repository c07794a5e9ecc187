//! A stream that tells why the peer broke it off.
//!
//! In TLS 1.3 a client is done with its handshake before the server has judged its certificate. A server that refuses sends
//! an alert and closes; whatever the client writes meanwhile is answered by a reset, and its next write fails although the
//! alert lies unread in its socket. Invariant: a write that fails like this reports what the peer had said, if it said
//! anything that TLS takes for an error, and its own failure if not.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is read at a time while looking for the peer's last words.
const SCRATCH: usize = 1024;

/// Wraps a TLS stream; see the module.
#[derive(Debug)]
pub(crate) struct LastWords<S> {
    stream: S,
    /// The failure of a write, while the peer's reason is looked for.
    broken: Option<io::Error>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> LastWords<S> {
    pub(crate) fn of(stream: S) -> Self {
        Self { stream, broken: None }
    }

    /// Passes the outcome of a write on, once it is known why it failed.
    fn explained<T>(
        &mut self,
        cx: &mut Context<'_>,
        write: impl FnOnce(Pin<&mut S>, &mut Context<'_>) -> Poll<io::Result<T>>,
    ) -> Poll<io::Result<T>> {
        let mut failure = match self.broken.take() {
            Some(failure) => failure,
            None => match ready!(write(Pin::new(&mut self.stream), cx)) {
                Err(error) if is_break(&error) => error,
                outcome => return Poll::Ready(outcome),
            },
        };
        let mut scratch = [0; SCRATCH];
        loop {
            let mut buf = ReadBuf::new(&mut scratch);
            match Pin::new(&mut self.stream).poll_read(cx, &mut buf) {
                // The end of a broken connection is an event of its own, so this is called again.
                Poll::Pending => {
                    self.broken = Some(failure);
                    return Poll::Pending;
                }
                Poll::Ready(Ok(())) if !buf.filled().is_empty() => {}
                Poll::Ready(Ok(())) => return Poll::Ready(Err(failure)),
                Poll::Ready(Err(reason)) => {
                    if reason.kind() == io::ErrorKind::InvalidData {
                        failure = reason;
                    }
                    return Poll::Ready(Err(failure));
                }
            }
        }
    }
}

/// Whether a write failed because the other end is gone.
fn is_break(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset)
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for LastWords<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for LastWords<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.explained(cx, |stream, cx| stream.poll_write(cx, buf))
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        self.explained(cx, |stream, cx| stream.poll_write_vectored(cx, bufs))
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.explained(cx, |stream, cx| stream.poll_flush(cx))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncWriteExt as _;
    use tokio_test::io::Builder;

    use super::*;

    fn broken() -> io::Error {
        io::ErrorKind::BrokenPipe.into()
    }

    #[tokio::test]
    async fn a_broken_write_tells_what_the_peer_said() {
        let alert = io::Error::new(io::ErrorKind::InvalidData, "received fatal alert");
        let stream = Builder::new().write_error(broken()).read(b"settings").read_error(alert).build();
        let error = LastWords::of(stream).write(b"request").await.unwrap_err();
        assert_eq!(error.to_string(), "received fatal alert");
    }

    #[tokio::test]
    async fn a_broken_write_stays_one_where_the_peer_said_nothing() {
        let reset = io::Error::from(io::ErrorKind::ConnectionReset);
        let stream = Builder::new().write_error(broken()).read_error(reset).build();
        let error = LastWords::of(stream).write(b"request").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
        let stream = Builder::new().write_error(broken()).build();
        let error = LastWords::of(stream).write(b"request").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }

    #[tokio::test]
    async fn other_failures_and_successes_pass() {
        let full = io::Error::from(io::ErrorKind::StorageFull);
        let stream = Builder::new().write(b"request").write_error(full).build();
        let mut stream = LastWords::of(stream);
        stream.write_all(b"request").await.unwrap();
        assert_eq!(stream.write(b"more").await.unwrap_err().kind(), io::ErrorKind::StorageFull);
    }
}
