//! What the slow streams of one tunnel hold of it, so that they cannot starve the others.
//!
//! All streams of a tunnel share its connection's window, and a reader that does not read keeps what came for it: four
//! full streams of 4 MiB would use up 16 MiB, and nothing would come for anybody. HTTP/2 (RFC 9113 §5.2) lets a receiver
//! change its mind: who keeps data waiting states a [`Claim`], and the connection's window is widened by as much. Where
//! that would become too much, the windows of all streams are narrowed instead, so far that the plain window holds them
//! all.
//!
//! Invariants: whatever others claim, streams whose readers read share the plain window at least; a tunnel holds no more
//! than its plain window and [`Http2Config::stalled_window`] together; a stream whose reader has read everything has room.
//!
//! The last does not follow from the others. What a stream has received counts against a narrower window, too (RFC 9113 §6.9.2), so
//! the peer may be left with less than none. The HTTP/2 library gives back what was read when that is half of what the peer has left,
//! and looks at that only when something is read: where all was read before, nothing comes, so nothing is read. So each stream is
//! looked at again once the peer has acknowledged.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Buf;
use h2::{FlowControl, RecvStream, StreamId};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::sync::Notify;
use tokio::time::timeout;

use super::Http2Config;

/// When to look again whether the peer has acknowledged the settings before.
const RETRY: Duration = Duration::from_millis(100);

/// The account of one tunnel.
#[derive(Debug)]
pub(crate) struct Strain {
    /// The windows as they are without claims.
    plain: Windows,
    stalled_window: u32,
    /// A stream's window while there are many claims.
    narrow: u32,
    claimed: Mutex<Claimed>,
    changed: Notify,
    /// Whether something is left to be applied.
    pending: AtomicBool,
    /// Streams that wait for room to send.
    waiting: AtomicUsize,
}

#[derive(Debug)]
struct Claimed {
    streams: u32,
    bytes: usize,
    applied: Windows,
    /// All streams, those without a claim as well.
    members: HashMap<StreamId, FlowControl>,
    /// Whether the peer was told to narrow the streams' windows, and is not known to have done so.
    narrowing: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Windows {
    connection: u32,
    stream: u32,
}

impl Strain {
    pub(super) fn new(config: &Http2Config) -> Arc<Self> {
        let plain = Windows { connection: config.connection_window, stream: config.stream_window };
        let share = config.connection_window / config.max_streams.max(1);
        Arc::new(Self {
            plain,
            stalled_window: config.stalled_window,
            narrow: share.min(config.stream_window),
            claimed: Mutex::new(Claimed {
                streams: 0,
                bytes: 0,
                applied: plain,
                members: HashMap::new(),
                narrowing: false,
            }),
            changed: Notify::new(),
            pending: AtomicBool::new(false),
            waiting: AtomicUsize::new(0),
        })
    }

    /// Whether a stream of it waits, to be read by its reader here or to be sent by us.
    pub(super) fn is_felt(&self) -> bool {
        self.waiting.load(Ordering::Relaxed) > 0 || self.claimed().streams > 0
    }

    /// Counts a stream that waits for room to send, until the result is dropped.
    pub(crate) fn wait(&self) -> Waiting<'_> {
        self.waiting.fetch_add(1, Ordering::Relaxed);
        Waiting(&self.waiting)
    }

    /// Enters a stream, until the result is dropped.
    pub(super) fn enter(self: &Arc<Self>, stream: &mut RecvStream) -> Member {
        let id = stream.stream_id();
        self.claimed().members.insert(id, stream.flow_control().clone());
        Member { strain: Arc::clone(self), id }
    }

    /// Claims what a stream holds for its reader, and what may still come for it.
    pub(crate) fn claim(self: &Arc<Self>, flow: &FlowControl) -> Claim {
        let room = usize::try_from(flow.available_capacity()).unwrap_or(0);
        let bytes = flow.used_capacity().saturating_add(room);
        let mut claimed = self.claimed();
        claimed.streams += 1;
        claimed.bytes += bytes;
        drop(claimed);
        self.changed.notify_one();
        Claim { strain: Arc::clone(self), bytes }
    }

    /// Returns when [`Self::apply`] should be called again.
    pub(super) async fn changed(&self) {
        let changed = self.changed.notified();
        if self.pending.load(Ordering::Relaxed) {
            let _ = timeout(RETRY, changed).await;
        } else {
            changed.await;
        }
    }

    /// Gives the connection the windows that are right by now.
    pub(super) fn apply(&self, connection: &mut impl Windowed) {
        let mut claimed = self.claimed();
        if claimed.narrowing && claimed.is_narrowed() {
            claimed.narrowing = false;
            claimed.give_room();
        }
        let wanted = self.wanted(&claimed);
        let mut applied = claimed.applied;
        if wanted.stream != applied.stream && connection.set_stream_window(wanted.stream) {
            claimed.narrowing = wanted.stream < applied.stream;
            applied.stream = wanted.stream;
        }
        // Narrowed first: what a wider connection has room for must not go to streams that are full of it.
        let has_narrowed = applied.stream <= wanted.stream;
        if wanted.connection < applied.connection || wanted.connection > applied.connection && has_narrowed {
            connection.set_connection_window(wanted.connection);
            applied.connection = wanted.connection;
        }
        claimed.applied = applied;
        self.pending.store(applied != wanted || claimed.narrowing, Ordering::Relaxed);
    }

    fn wanted(&self, claimed: &Claimed) -> Windows {
        let limit = self.stalled_window;
        let full = claimed.streams.saturating_mul(self.plain.stream);
        // Narrow beyond a half, wide again below a quarter, so that one stream more or less is no change.
        let wide =
            if claimed.applied.stream == self.plain.stream { full <= limit / 2 } else { full <= limit / 4 };
        let bytes = u32::try_from(claimed.bytes).unwrap_or(u32::MAX);
        // In a wide tunnel a claim that was stated in a narrow one can grow.
        let held = if wide { bytes.max(full) } else { bytes };
        Windows {
            connection: self.plain.connection.saturating_add(held.min(limit)).min(i32::MAX.unsigned_abs()),
            stream: if wide { self.plain.stream } else { self.narrow },
        }
    }

    fn claimed(&self) -> MutexGuard<'_, Claimed> {
        self.claimed.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Claimed {
    /// Whether the peer has acknowledged the streams' windows: that changes what a stream holds and may still get, together.
    fn is_narrowed(&self) -> bool {
        let window = isize::try_from(self.applied.stream).unwrap_or(isize::MAX);
        let of = |flow: &FlowControl| flow.available_capacity().saturating_add_unsigned(flow.used_capacity());
        self.members.values().any(|flow| of(flow) == window)
    }

    /// Has the library look at every stream again, and give the peer back what was read.
    fn give_room(&mut self) {
        for flow in self.members.values_mut() {
            // It fails for more than has been received, which nothing is not.
            let _ = flow.release_capacity(0);
        }
    }
}

/// A stream in the account of its tunnel.
#[derive(Debug)]
pub(crate) struct Member {
    strain: Arc<Strain>,
    id: StreamId,
}

impl Deref for Member {
    type Target = Arc<Strain>;

    fn deref(&self) -> &Arc<Strain> {
        &self.strain
    }
}

impl Drop for Member {
    fn drop(&mut self) {
        let last = self.strain.claimed().members.remove(&self.id);
        // Not under the lock: it may be the stream's end.
        drop(last);
    }
}

/// Held for a stream while its reader lets data wait.
#[derive(Debug)]
pub(crate) struct Claim {
    strain: Arc<Strain>,
    bytes: usize,
}

impl Drop for Claim {
    fn drop(&mut self) {
        let mut claimed = self.strain.claimed();
        claimed.streams -= 1;
        claimed.bytes -= self.bytes;
        drop(claimed);
        self.strain.changed.notify_one();
    }
}

/// A stream that waits for room to send.
#[derive(Debug)]
pub(crate) struct Waiting<'a>(&'a AtomicUsize);

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A connection whose windows can be changed.
pub(super) trait Windowed {
    fn set_connection_window(&mut self, size: u32);
    /// Tells whether it could be sent: not before the peer has acknowledged what it was told last.
    fn set_stream_window(&mut self, size: u32) -> bool;
}

impl<T: AsyncRead + AsyncWrite + Unpin, B: Buf> Windowed for h2::client::Connection<T, B> {
    fn set_connection_window(&mut self, size: u32) {
        self.set_target_window_size(size);
    }

    fn set_stream_window(&mut self, size: u32) -> bool {
        self.set_initial_window_size(size).is_ok()
    }
}

impl<T: AsyncRead + AsyncWrite + Unpin, B: Buf> Windowed for h2::server::Connection<T, B> {
    fn set_connection_window(&mut self, size: u32) {
        self.set_target_window_size(size);
    }

    fn set_stream_window(&mut self, size: u32) -> bool {
        self.set_initial_window_size(size).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What a peer was told, and whether it has acknowledged that.
    struct Told {
        windows: Windows,
        acknowledged: bool,
    }

    impl Windowed for Told {
        fn set_connection_window(&mut self, size: u32) {
            self.windows.connection = size;
        }

        fn set_stream_window(&mut self, size: u32) -> bool {
            if self.acknowledged {
                self.windows.stream = size;
            }
            self.acknowledged
        }
    }

    #[test]
    fn while_streams_cannot_be_narrowed_the_connection_is_not_widened() {
        let config = Http2Config::default();
        let strain = Strain::new(&config);
        let mut told = Told { windows: strain.plain, acknowledged: false };
        let full = config.stalled_window / config.stream_window;
        {
            let mut claimed = strain.claimed();
            claimed.streams = full;
            claimed.bytes = config.stalled_window as usize;
        }
        strain.apply(&mut told);
        assert_eq!(told.windows, strain.plain);
        assert!(strain.pending.load(Ordering::Relaxed), "it is tried again");
        told.acknowledged = true;
        strain.apply(&mut told);
        let connection = config.connection_window + config.stalled_window;
        assert_eq!(told.windows, Windows { connection, stream: strain.narrow });
    }
}
