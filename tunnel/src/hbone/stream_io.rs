//! A stream in a tunnel as something to read and write, for what is tunnelled inside it.
//!
//! Invariant: what was read is released to the tunnel's windows only as it is consumed, and no more is taken for sending
//! than the peer has room for. A stream that the peer resets reads as an error, unless the reset means that it is done.

use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::{Buf, Bytes};
use h2::Reason;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::HboneStream;
use crate::relay::{BUFFER_SIZE, Buffer};

/// Reads and writes a stream.
#[derive(Debug)]
pub(super) struct StreamIo {
    stream: HboneStream,
    /// Received, and not read yet.
    unread: Bytes,
}

impl StreamIo {
    pub(super) fn new(stream: HboneStream) -> Self {
        Self { stream, unread: Bytes::new() }
    }

    /// Receives until there is something to read; `false` at the end.
    fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<bool>> {
        while self.unread.is_empty() {
            match ready!(self.stream.recv.poll_data(cx)) {
                Some(Ok(data)) => self.unread = data,
                Some(Err(error)) if is_end(&error) => return Poll::Ready(Ok(false)),
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
                None => return Poll::Ready(Ok(false)),
            }
        }
        Poll::Ready(Ok(true))
    }
}

impl AsyncRead for StreamIo {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if !ready!(self.poll_fill(cx))? {
            return Poll::Ready(Ok(()));
        }
        let count = self.unread.len().min(into.remaining());
        into.put_slice(self.unread.get(..count).unwrap_or_default());
        self.unread.advance(count);
        Poll::Ready(self.stream.recv.flow_control().release_capacity(count).map_err(broken))
    }
}

impl AsyncWrite for StreamIo {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let send = &mut self.stream.send;
        send.reserve_capacity(bytes.len().min(BUFFER_SIZE));
        while send.capacity() == 0 {
            match ready!(send.poll_capacity(cx)) {
                Some(Ok(_)) => {}
                Some(Err(error)) => return Poll::Ready(Err(broken(error))),
                None => return Poll::Ready(Err(ErrorKind::BrokenPipe.into())),
            }
        }
        let room = send.capacity().min(bytes.len());
        let buffer = Buffer::copied(bytes.get(..room).unwrap_or_default());
        let count = buffer.remaining();
        Poll::Ready(send.send_data(buffer, false).map(|()| count).map_err(broken))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        // A stream that has ended in the meantime needs no end.
        let _ = self.stream.send.send_data(Buffer::default(), true);
        Poll::Ready(Ok(()))
    }
}

/// Whether the peer is done with the stream, in good order.
fn is_end(error: &h2::Error) -> bool {
    error.is_reset() && matches!(error.reason(), Some(Reason::NO_ERROR | Reason::CANCEL))
}

fn broken(error: h2::Error) -> io::Error {
    let kind = if error.is_reset() { ErrorKind::ConnectionReset } else { ErrorKind::BrokenPipe };
    io::Error::new(kind, error)
}
