//! A JSON document as a stream of pieces, made as fast as they are taken.

use std::time::Duration;

use axum::body::Bytes;
use futures_util::{Stream, stream};
use serde::Serialize;
use tokio::sync::mpsc;

/// Bytes of a piece, but for the resource that it ends with.
const PIECE: usize = 64 * 1024;
/// Pieces that wait for the one who asked.
const AHEAD: usize = 2;
/// How long a piece may wait.
const PATIENCE: Duration = Duration::from_secs(60);

/// A document that will not be finished.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    /// Nobody reads it.
    #[error("the one who asked has gone")]
    Gone,
    /// It is not read fast enough.
    #[error("the one who asked did not read for {} s", PATIENCE.as_secs())]
    Stalled,
    /// A value cannot be written as JSON.
    #[error("a value cannot be written: {0}")]
    Value(#[from] serde_json::Error),
    /// It could not be prepared.
    #[error("preparing it failed: {0}")]
    Prepared(#[from] tokio::task::JoinError),
}

/// Writes a document. Dropped unfinished, it ends the stream with an error, so that nobody takes a part for the whole.
pub(super) struct Writer {
    pieces: mpsc::Sender<Result<Bytes, Cut>>,
    buffer: Vec<u8>,
    /// Whether the next member or value is the first of its object or list.
    first: bool,
    finished: bool,
}

/// The document ends before its end.
#[derive(Clone, Copy, Debug, thiserror::Error)]
#[error("the document was cut short")]
pub(super) struct Cut;

/// A writer and what it writes.
pub(super) fn start() -> (Writer, impl Stream<Item = Result<Bytes, Cut>>) {
    // One place more, for the word that it was cut short.
    let (pieces, mut taken) = mpsc::channel(AHEAD + 1);
    let writer = Writer { pieces, buffer: Vec::with_capacity(PIECE), first: true, finished: false };
    (writer, stream::poll_fn(move |context| taken.poll_recv(context)))
}

impl Writer {
    /// Begins an object, as a member of the one around it or as the whole document.
    pub(super) fn open(&mut self, key: Option<&str>) {
        if let Some(key) = key {
            self.key(key);
        }
        self.buffer.push(b'{');
        self.first = true;
    }

    /// Ends an object.
    pub(super) fn close(&mut self) {
        self.buffer.push(b'}');
        self.first = false;
    }

    /// Writes a member of an object.
    pub(super) fn member(&mut self, key: &str, value: &impl Serialize) -> Result<(), Broken> {
        self.key(key);
        Ok(serde_json::to_writer(&mut self.buffer, value)?)
    }

    /// Begins a member that is a list.
    pub(super) fn begin(&mut self, key: &str) {
        self.key(key);
        self.buffer.push(b'[');
        self.first = true;
    }

    /// Writes a value of a list.
    pub(super) fn value(&mut self, value: &impl Serialize) -> Result<(), Broken> {
        self.comma();
        Ok(serde_json::to_writer(&mut self.buffer, value)?)
    }

    /// Ends a list.
    pub(super) fn end(&mut self) {
        self.buffer.push(b']');
        self.first = false;
    }

    /// Sends what has been written, once it is worth it. Waits until it is taken.
    pub(super) async fn send(&mut self) -> Result<(), Broken> {
        if self.buffer.len() < PIECE {
            return Ok(());
        }
        self.send_all().await
    }

    /// Sends what is left.
    pub(super) async fn finish(mut self) -> Result<(), Broken> {
        self.buffer.push(b'\n');
        self.send_all().await?;
        self.finished = true;
        Ok(())
    }

    /// Keys are ours, and plain.
    fn key(&mut self, key: &str) {
        self.comma();
        self.buffer.push(b'"');
        self.buffer.extend_from_slice(key.as_bytes());
        self.buffer.extend_from_slice(b"\":");
    }

    fn comma(&mut self) {
        if !std::mem::take(&mut self.first) {
            self.buffer.push(b',');
        }
    }

    async fn send_all(&mut self) -> Result<(), Broken> {
        // The last place is not for pieces.
        let place = tokio::time::timeout(PATIENCE, self.pieces.reserve_many(2)).await;
        let mut places = match place {
            Ok(Ok(places)) => places,
            Ok(Err(_)) => return Err(Broken::Gone),
            Err(_) => return Err(Broken::Stalled),
        };
        let piece = std::mem::replace(&mut self.buffer, Vec::with_capacity(PIECE));
        if let Some(place) = places.next() {
            place.send(Ok(Bytes::from(piece)));
        }
        Ok(())
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        if !self.finished {
            // There is a place, unless nobody reads.
            let _ = self.pieces.try_send(Err(Cut));
        }
    }
}
