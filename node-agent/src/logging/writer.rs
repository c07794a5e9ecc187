//! The thread that writes lines, many at a time.
//!
//! Whoever logs copies its line into a buffer and goes on; the thread takes the buffer as a whole a moment after its first
//! line came, so that under load a write and a change of threads serve hundreds of lines. Invariants: lines come out whole and in
//! order; nobody who logs waits for the reader of the log. What finds the buffer full, and what cannot be written, is counted
//! as lost. A buffer is held only while there is something in it.

use std::io::{self, ErrorKind, Write};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;
use std::time::Duration;

use tracing_subscriber::fmt::MakeWriter;

/// Bytes that may wait for the writer.
const LIMIT: usize = 8 << 20;
/// So many bytes are written at once rather than waiting for more.
const BATCH: usize = 64 << 10;
/// How long the first line of a batch waits for others.
const GATHER: Duration = Duration::from_millis(5);
/// How long a reader of the log that takes nothing is given before it is tried again.
const PAUSE: Duration = Duration::from_millis(10);

/// Lines that were lost.
#[derive(Clone, Debug, Default)]
pub(crate) struct Lost(Arc<AtomicU64>);

impl Lost {
    /// So many so far.
    pub(crate) fn count(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }

    fn add(&self, lines: u64) {
        self.0.fetch_add(lines, Ordering::Relaxed);
    }
}

/// Where lines are put.
#[derive(Clone, Debug)]
pub(super) struct Lines(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    waiting: Mutex<Waiting>,
    changed: Condvar,
    lost: Lost,
}

#[derive(Debug, Default)]
struct Waiting {
    bytes: Vec<u8>,
    is_closed: bool,
}

/// The thread; dropping it writes what waits, and ends it.
#[derive(Debug)]
pub(super) struct Writer {
    lines: Lines,
    thread: Option<JoinHandle<()>>,
}

impl Writer {
    /// Begins to write to `out`.
    pub(super) fn start(out: impl Write + Send + 'static) -> io::Result<Self> {
        let lines = Lines(Arc::default());
        let shared = Arc::clone(&lines.0);
        let thread =
            std::thread::Builder::new().name("log".to_owned()).spawn(move || shared.write_to(out))?;
        Ok(Self { lines, thread: Some(thread) })
    }

    pub(super) fn lines(&self) -> Lines {
        self.lines.clone()
    }

    pub(super) fn lost(&self) -> Lost {
        self.lines.0.lost.clone()
    }
}

impl Drop for Writer {
    fn drop(&mut self) {
        self.lines.0.waiting().is_closed = true;
        self.lines.0.changed.notify_one();
        // A panic of the thread has been told by itself.
        let _ = self.thread.take().map(JoinHandle::join);
    }
}

impl Shared {
    fn waiting(&self) -> MutexGuard<'_, Waiting> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn write_to(&self, mut out: impl Write) {
        while let Some(batch) = self.next() {
            let done = write_all(&mut out, &batch, || self.waiting().is_closed);
            if let Err(unwritten) = done {
                self.lost.add(unwritten.iter().filter(|byte| **byte == b'\n').count() as u64);
            }
        }
    }

    /// The next batch; none once it is closed and everything has been taken.
    fn next(&self) -> Option<Vec<u8>> {
        let idle = |waiting: &mut Waiting| waiting.bytes.is_empty() && !waiting.is_closed;
        let few = |waiting: &mut Waiting| waiting.bytes.len() < BATCH && !waiting.is_closed;
        let waiting = self.changed.wait_while(self.waiting(), idle).unwrap_or_else(PoisonError::into_inner);
        let gathered = self.changed.wait_timeout_while(waiting, GATHER, few);
        let (mut waiting, _) = gathered.unwrap_or_else(PoisonError::into_inner);
        let batch = std::mem::take(&mut waiting.bytes);
        (!batch.is_empty()).then_some(batch)
    }
}

/// Writes everything, or says what it could not: what is full for now is tried again until `is_closed`.
fn write_all<'a>(
    out: &mut impl Write,
    mut bytes: &'a [u8],
    is_closed: impl Fn() -> bool,
) -> Result<(), &'a [u8]> {
    while !bytes.is_empty() {
        match out.write(bytes) {
            Ok(0) => return Err(bytes),
            Ok(count) => bytes = bytes.get(count..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock && !is_closed() => std::thread::sleep(PAUSE),
            Err(_) => return Err(bytes),
        }
    }
    out.flush().map_err(|_| bytes)
}

impl Write for &Lines {
    /// Takes a line. It is never refused: whether it was lost is counted.
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        let Lines(shared) = self;
        let mut waiting = shared.waiting();
        let before = waiting.bytes.len();
        if before.saturating_add(line.len()) > LIMIT {
            shared.lost.add(1);
            return Ok(line.len());
        }
        waiting.bytes.extend_from_slice(line);
        drop(waiting);
        // Whoever waits, waits for a first line or for a batch.
        if before == 0 || (before < BATCH && before + line.len() >= BATCH) {
            shared.changed.notify_one();
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl<'a> MakeWriter<'a> for Lines {
    type Writer = &'a Self;

    fn make_writer(&'a self) -> Self::Writer {
        self
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};

    use super::*;
    use crate::logging::tests::Written;

    #[test]
    fn lines_come_out_whole_and_in_order_and_the_last_ones_before_the_end() {
        let out = Written::default();
        let writer = Writer::start(out.clone()).unwrap();
        let expected: Vec<String> = (0..20_000).map(|n| format!("line {n}\n")).collect();
        for line in &expected {
            (&writer.lines()).write_all(line.as_bytes()).unwrap();
        }
        assert_eq!(writer.lost().count(), 0);
        drop(writer);
        assert!(*out.0.lock().unwrap() == expected.concat().into_bytes());
    }

    /// Says that it was asked to write, and does so when it may.
    struct Slow {
        asked: Sender<()>,
        may: Receiver<()>,
        out: Written,
    }

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            // Only the first one is waited for.
            let _ = self.asked.send(());
            // Nobody is left to say so at the end.
            let _ = self.may.recv();
            self.out.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_reader_that_takes_nothing_holds_nobody_up_and_what_it_misses_is_counted() {
        let (out, (asked, is_asked), (allow, may)) = (Written::default(), channel(), channel());
        let writer = Writer::start(Slow { asked, may, out: out.clone() }).unwrap();
        let lines = writer.lines();
        (&lines).write_all(b"first\n").unwrap();
        is_asked.recv().unwrap();
        let line = [&[b'x'; 1023][..], b"\n"].concat();
        for _ in 0..LIMIT / line.len() + 3 {
            (&lines).write_all(&line).unwrap();
        }
        assert_eq!(writer.lost().count(), 3);
        drop((allow, is_asked));
        drop(writer);
        assert_eq!(out.0.lock().unwrap().len(), b"first\n".len() + LIMIT);
    }

    struct Full;

    impl Write for Full {
        fn write(&mut self, _: &[u8]) -> io::Result<usize> {
            Err(ErrorKind::StorageFull.into())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn what_cannot_be_written_is_counted_by_lines() {
        let writer = Writer::start(Full).unwrap();
        (&writer.lines()).write_all(b"one\n").unwrap();
        (&writer.lines()).write_all(b"two\n").unwrap();
        let lost = writer.lost();
        drop(writer);
        assert_eq!(lost.count(), 2);
    }
}
