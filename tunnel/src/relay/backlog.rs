//! What has come through a tunnel and waits for its reader.
//!
//! The windows of HTTP/2 count payload alone, while each frame that is left unread costs a place of its own: a sender of small
//! frames and a reader that has stopped would pile them up, until the HTTP/2 library ends the connection with
//! ENHANCE_YOUR_CALM, and every stream on it. So frames are taken as they come. Invariants: what waits is bounded by the stream's
//! window, since nothing is released to it before it is written; small frames are joined, so that they take no more memory than
//! their bytes; when nothing waits, nothing is held.

use std::collections::VecDeque;
use std::mem::take;

use bytes::{Buf, Bytes, BytesMut};

/// Frames up to this size are copied behind the one before, if they have to wait.
const SMALL: usize = 4 * 1024;
/// What is joined at most. Growing it copies it, so that it must not be all that a window has room for.
const JOINED: usize = 64 * 1024;

/// Bytes in the order in which they came.
#[derive(Debug, Default)]
pub(super) struct Backlog {
    /// The first piece; apart, so that what is written at once needs no queue.
    front: Bytes,
    rest: VecDeque<Bytes>,
    /// The last piece, which grows.
    joined: BytesMut,
    remaining: usize,
}

impl Backlog {
    /// Takes a frame's payload.
    pub(super) fn push(&mut self, data: Bytes) {
        let waits = self.has_remaining();
        self.remaining += data.len();
        if !waits {
            self.front = data;
        } else if data.len() > SMALL {
            self.close();
            self.rest.push_back(data);
        } else {
            if self.joined.len() + data.len() > JOINED {
                self.close();
            }
            self.joined.extend_from_slice(&data);
        }
    }

    /// Lets the last piece grow no more.
    fn close(&mut self) {
        if !self.joined.is_empty() {
            self.rest.push_back(take(&mut self.joined).freeze());
        }
    }
}

impl Buf for Backlog {
    fn remaining(&self) -> usize {
        self.remaining
    }

    fn chunk(&self) -> &[u8] {
        &self.front
    }

    fn advance(&mut self, count: usize) {
        let mut left = count.min(self.remaining);
        self.remaining -= left;
        while left > 0 {
            let taken = left.min(self.front.len());
            self.front.advance(taken);
            left -= taken;
            if self.front.is_empty() {
                if self.rest.is_empty() {
                    self.close();
                }
                self.front = self.rest.pop_front().unwrap_or_default();
            }
        }
        if self.remaining == 0 {
            *self = Self::default();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bytes(length: usize, first: usize) -> Bytes {
        (first..first + length).map(|place| place as u8).collect()
    }

    #[test]
    fn what_was_pushed_comes_out_in_order_whatever_the_sizes() {
        let (mut backlog, mut place, mut got) = (Backlog::default(), 0, Vec::new());
        for length in [3, 1, 0, SMALL, SMALL + 1, 2, JOINED, 5, SMALL, 1] {
            backlog.push(bytes(length, place));
            place += length;
        }
        assert_eq!(backlog.remaining(), place);
        for step in (1..).step_by(7) {
            let count = step.min(backlog.chunk().len());
            got.extend_from_slice(&backlog.chunk()[..count]);
            backlog.advance(count);
            if !backlog.has_remaining() {
                break;
            }
        }
        assert_eq!(got, bytes(place, 0));
        // Over the end of a piece, too.
        backlog.push(bytes(10, 0));
        backlog.push(bytes(10, 10));
        backlog.advance(15);
        assert_eq!(backlog.chunk(), &bytes(5, 15)[..]);
    }

    #[test]
    fn small_frames_take_the_memory_of_their_bytes_and_none_when_they_are_gone() {
        let mut backlog = Backlog::default();
        for place in 0..1_000_000 {
            backlog.push(bytes(1, place));
        }
        let held = backlog.rest.iter().map(Bytes::len).sum::<usize>() + backlog.joined.capacity();
        assert!(held <= 1_000_000 + 2 * JOINED && backlog.rest.len() <= 16, "{held}, {}", backlog.rest.len());
        backlog.advance(1_000_000);
        assert_eq!((backlog.rest.capacity(), backlog.joined.capacity()), (0, 0));
    }
}
