//! The data path's threads: each a runtime of its own, so that a connection stays where it began.
//!
//! Invariant: nothing of the control plane runs here, and no connection is moved between threads once it has
//! been dealt to a worker.

use std::io;
use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::runtime::{Builder, Handle};
use tokio::sync::oneshot;

use crate::hbone::pool::Pool;
use crate::seat::{Duty, Seat, Seats};

/// How long a worker goes on while others want its CPU. It has little to do each time it wakes, and a packet waits for that: it
/// goes before the control plane's threads, which may be at work for a long while, and before those for crowds.
const TURN: Duration = Duration::from_micros(500);
/// After how many polls of tasks a worker looks for what has arrived meanwhile: a share polls several connections at once.
const LOOK: u32 = 4;
/// Threads a worker may use for resolving names.
const BLOCKING_THREADS: usize = 2;

/// One thread and its pool of tunnels.
pub(crate) struct Worker {
    pub(crate) runtime: Handle,
    pub(crate) pool: Pool,
    /// The thread ends when this is dropped.
    _running: oneshot::Sender<()>,
}

/// All of them. Dropping it ends the threads, and with them every connection.
pub(crate) struct Workers {
    workers: Seats<Worker>,
    /// Of those for all, and of those for crowds.
    next: [AtomicUsize; 2],
}

impl Workers {
    /// Starts `count` workers, and as many for crowds, each with a pool of its own.
    pub(crate) fn start(count: NonZeroUsize, pool: impl Fn() -> Pool) -> io::Result<Self> {
        let workers = Seats::try_new(count.get(), |seat| Worker::start(seat, pool()))?;
        Ok(Self { workers, next: Default::default() })
    }

    /// The next in turn of those that have this duty.
    pub(crate) fn turn(&self, duty: Duty) -> Option<Seat> {
        let [all, crowds] = &self.next;
        let next = if duty == Duty::All { all } else { crowds };
        let number = next.fetch_add(1, Ordering::Relaxed).checked_rem(self.workers.of(duty).len())?;
        Some(Seat { duty, number })
    }

    /// The one at this seat.
    pub(crate) fn get(&self, seat: Seat) -> Option<&Worker> {
        self.workers.get(seat)
    }

    /// All of them.
    pub(crate) const fn seats(&self) -> &Seats<Worker> {
        &self.workers
    }
}

impl Worker {
    fn start(Seat { duty, number }: Seat, pool: Pool) -> io::Result<Self> {
        let runtime = Builder::new_current_thread()
            .enable_io()
            .enable_time()
            .max_blocking_threads(BLOCKING_THREADS)
            .event_interval(LOOK)
            .global_queue_interval(LOOK)
            .build()?;
        let handle = runtime.handle().clone();
        let (running, stopped) = oneshot::channel::<()>();
        let kind = if duty == Duty::All { "data" } else { "crowd" };
        std::thread::Builder::new().name(format!("culvert-{kind}-{number}")).spawn(move || {
            if duty == Duty::All
                && let Err(error) = linux::scheduling::take_short_turns(TURN)
            {
                tracing::debug!(%error, "the data path takes turns as everything else does");
            }
            // The sender says nothing; that it is gone is the message.
            let _ = runtime.block_on(stopped);
            runtime.shutdown_background();
        })?;
        Ok(Self { runtime: handle, pool, _running: running })
    }
}
