//! Reads more of a connection than TLS asks for.
//!
//! TLS asks for a record at a time, 18 KiB at most, which under load is a system call for each 16 KiB. Here one call takes
//! what has come, up to a buffer, and the records are taken from there. Invariants: bytes are passed on in order and unchanged, an end or an
//! error after what came before it; a buffer is held only while there is something in it, so a connection at rest holds none.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Buf as _;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::relay::Buffer;

/// A connection, and what has been read of it ahead of time.
#[derive(Debug)]
pub(crate) struct ReadAhead<T> {
    io: T,
    ahead: Buffer,
}

impl<T> ReadAhead<T> {
    pub(crate) fn of(io: T) -> Self {
        Self { io, ahead: Buffer::default() }
    }

    /// The connection itself. What is read of it directly comes before what is still in the buffer.
    pub(crate) fn get_ref(&self) -> &T {
        &self.io
    }

    /// The connection alone; what was read ahead is gone.
    pub(crate) fn into_inner(self) -> T {
        self.io
    }
}

impl<T: AsyncRead + Unpin> ReadAhead<T> {
    /// Takes what has come.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let io = Pin::new(&mut self.io);
        let read = Buffer::lend(|into| {
            let mut into = ReadBuf::new(into);
            match io.poll_read(cx, &mut into) {
                Poll::Ready(Ok(())) => Ok(into.filled().len()),
                Poll::Ready(Err(error)) => Err(Poll::Ready(error)),
                Poll::Pending => Err(Poll::Pending),
            }
        });
        match read {
            Ok(ahead) => self.ahead = ahead,
            Err(error) => return error.map(Err),
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncRead + Unpin> AsyncRead for ReadAhead<T> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !self.ahead.has_remaining() {
            std::task::ready!(self.poll_fill(cx))?;
        }
        let count = self.ahead.remaining().min(into.remaining());
        into.put_slice(self.ahead.chunk().get(..count).unwrap_or_default());
        self.ahead.advance(count);
        if !self.ahead.has_remaining() {
            self.ahead = Buffer::default();
        }
        Poll::Ready(Ok(()))
    }
}

impl<T: AsyncWrite + Unpin> AsyncWrite for ReadAhead<T> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.io).poll_write_vectored(cx, bytes)
    }

    fn is_write_vectored(&self) -> bool {
        self.io.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.io).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::AsyncReadExt as _;
    use tokio_test::io::Builder;

    use super::*;
    use crate::relay::BUFFER_SIZE;

    #[tokio::test]
    async fn what_one_read_brings_is_passed_on_in_any_portions() {
        let bytes: Vec<u8> = (0..=255).cycle().take(3 * BUFFER_SIZE + 7).collect();
        for portion in [1, 5, 18 * 1024, BUFFER_SIZE + 1] {
            let mut io = Builder::new();
            bytes.chunks(BUFFER_SIZE - 1).for_each(|chunk| {
                io.read(chunk);
            });
            let (mut stream, mut seen, mut into) = (ReadAhead::of(io.build()), Vec::new(), vec![0; portion]);
            loop {
                match stream.read(&mut into).await.unwrap() {
                    0 => break,
                    count => seen.extend_from_slice(&into[..count]),
                }
            }
            assert!(seen == bytes, "in portions of {portion}");
        }
    }

    #[tokio::test]
    async fn an_error_comes_after_what_came_before_it() {
        let io = Builder::new().read(b"last").read_error(io::ErrorKind::ConnectionReset.into()).build();
        let (mut stream, mut two) = (ReadAhead::of(io), [0; 2]);
        for expected in [b"la", b"st"] {
            stream.read_exact(&mut two).await.unwrap();
            assert_eq!(&two, expected);
        }
        assert_eq!(stream.read(&mut two).await.unwrap_err().kind(), io::ErrorKind::ConnectionReset);
    }

    #[tokio::test]
    async fn a_connection_at_rest_holds_no_buffer() {
        let (ours, mut theirs) = tokio::io::duplex(64);
        let (mut stream, mut into) = (ReadAhead::of(ours), [0; 3]);
        assert!(tokio_test::task::spawn(stream.read(&mut into)).poll().is_pending());
        assert_eq!(stream.ahead.room(), 0);
        tokio::io::AsyncWriteExt::write_all(&mut theirs, b"abcd").await.unwrap();
        stream.read_exact(&mut into).await.unwrap();
        assert_eq!(stream.ahead.room(), BUFFER_SIZE);
        stream.read_exact(&mut into[..1]).await.unwrap();
        assert_eq!(stream.ahead.room(), 0);
    }
}
