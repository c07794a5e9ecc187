//! Buffers for bytes on their way, lent by a pool of the worker thread.
//!
//! A buffer is taken when a socket has something to read and goes back when its bytes have left, so an idle
//! connection holds none. Little reads are moved to an allocation of their size: what waits for the tunnel
//! is accounted in bytes, and must not pin 64 KiB for each of them.

use std::cell::RefCell;
use std::convert::Infallible;

use bytes::Buf;

/// What precedes the bytes of a DATA frame (RFC 9113 §4.1).
const FRAME_HEAD: usize = 9;
/// What one read takes at most: with the head of its frame it fills four TLS records, and what the TLS library takes in one
/// write. A byte more would be a fifth record, sealed and written by itself.
pub(crate) const BUFFER_SIZE: usize = 64 * 1024 - FRAME_HEAD;
/// Reads up to this size are copied out of the pooled buffer.
const SMALL: usize = 4 * 1024;
/// What a worker keeps for later: 4 MiB.
const KEPT: usize = 64;

thread_local! {
    static POOL: RefCell<Vec<Box<[u8]>>> = const { RefCell::new(Vec::new()) };
}

/// Owned bytes of one read, consumed from the front.
#[derive(Debug, Default)]
pub(crate) struct Buffer {
    bytes: Box<[u8]>,
    start: usize,
    end: usize,
}

impl Buffer {
    /// Lets `read` fill a pooled buffer; the result holds what it says it read, and the buffer for as long as it lives.
    pub(crate) fn lend<E>(read: impl FnOnce(&mut [u8]) -> Result<usize, E>) -> Result<Self, E> {
        let bytes = POOL.with_borrow_mut(Vec::pop).unwrap_or_else(|| vec![0; BUFFER_SIZE].into_boxed_slice());
        let mut buffer = Self { bytes, start: 0, end: 0 };
        buffer.end = read(&mut buffer.bytes)?.min(BUFFER_SIZE);
        Ok(buffer)
    }

    /// The same for what may have to wait: the result holds a pooled buffer only if there is much in it.
    pub(super) fn fill<E>(read: impl FnOnce(&mut [u8]) -> Result<usize, E>) -> Result<Self, E> {
        let buffer = Self::lend(read)?;
        if (1..=SMALL).contains(&buffer.end) {
            let end = buffer.end;
            return Ok(Self { bytes: buffer.chunk().into(), start: 0, end });
        }
        Ok(buffer)
    }

    /// A buffer with these bytes, of no pool.
    pub(crate) fn copy_of(bytes: &[u8]) -> Self {
        Self { bytes: bytes.into(), start: 0, end: bytes.len() }
    }

    /// A copy of as many of the `bytes` as there is room for.
    pub(crate) fn copied(bytes: &[u8]) -> Self {
        let filled = Self::fill(|into| {
            let count = bytes.len().min(into.len());
            if let (Some(into), Some(from)) = (into.get_mut(..count), bytes.get(..count)) {
                into.copy_from_slice(from);
            }
            Ok::<_, Infallible>(count)
        });
        filled.unwrap_or_else(|never| match never {})
    }

    /// How many bytes it keeps from others.
    #[cfg(test)]
    pub(crate) fn room(&self) -> usize {
        self.bytes.len()
    }

    /// Whether nothing was read.
    pub(super) fn is_empty(&self) -> bool {
        self.start == self.end
    }
}

impl Buf for Buffer {
    fn remaining(&self) -> usize {
        self.end - self.start
    }

    fn chunk(&self) -> &[u8] {
        self.bytes.get(self.start..self.end).unwrap_or_default()
    }

    fn advance(&mut self, count: usize) {
        self.start = self.start.saturating_add(count).min(self.end);
    }
}

impl Drop for Buffer {
    fn drop(&mut self) {
        if self.bytes.len() != BUFFER_SIZE {
            return;
        }
        let bytes = std::mem::take(&mut self.bytes);
        // The pool is gone when a thread ends: then the buffer just goes, too.
        let _ = POOL.try_with(|pool| {
            if let Ok(mut pool) = pool.try_borrow_mut()
                && pool.len() < KEPT
            {
                pool.push(bytes);
            }
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pooled() -> usize {
        POOL.with_borrow(Vec::len)
    }

    fn read(count: usize) -> Buffer {
        Buffer::fill(|into| {
            into[..count].fill(7);
            Ok::<_, Infallible>(count)
        })
        .unwrap()
    }

    #[test]
    fn a_large_read_keeps_the_pooled_buffer_until_it_is_consumed() {
        let buffer = read(BUFFER_SIZE);
        assert_eq!((buffer.remaining(), pooled()), (BUFFER_SIZE, 0));
        drop(buffer);
        assert_eq!(pooled(), 1);
    }

    #[test]
    fn a_small_read_gives_the_pooled_buffer_back_at_once() {
        let mut buffer = read(10);
        assert_eq!((buffer.bytes.len(), pooled()), (10, 1));
        buffer.advance(4);
        assert_eq!(buffer.chunk(), [7; 6]);
    }

    #[test]
    fn a_failed_read_gives_the_pooled_buffer_back() {
        assert!(Buffer::fill(|_| Err::<usize, _>("no")).is_err());
        assert_eq!(pooled(), 1);
    }
}
