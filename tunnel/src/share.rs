//! Shares: what the connections that came to one pod's listeners, or by one tunnel, take of a worker.
//!
//! The connections of a share run in one task, which polls a few of them and then lets the worker's other tasks have their turn. So
//! whoever opens more connections than can be served waits behind its own, and not in front of its neighbours.
//!
//! Invariants: what is in a share runs on the worker that the share was made on, and to its end, whether or not the share's
//! handles are gone. A connection that panics takes none of the others along.

use std::future::poll_fn;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};

use futures_util::Stream;
use futures_util::stream::FuturesUnordered;
use tokio::runtime::Handle;
use tokio::sync::mpsc::{self, UnboundedReceiver, UnboundedSender};

/// Connections that are polled in one turn, some tens of microseconds each. What one turn writes to a tunnel goes out together: with three of
/// them each connection took an eighth more of a CPU.
const TURN: usize = 8;

type Work = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Where connections are put to be served.
#[derive(Clone, Debug)]
pub(crate) struct Share(Arc<Entrance>);

#[derive(Debug)]
struct Entrance {
    works: UnboundedSender<Work>,
    /// How many are inside.
    held: Arc<AtomicUsize>,
}

impl Share {
    /// A new one on a worker.
    pub(crate) fn on(worker: &Handle) -> Self {
        let (works, arriving) = mpsc::unbounded_channel();
        let held = Arc::default();
        worker.spawn(serve(arriving, Arc::clone(&held)));
        Self(Arc::new(Entrance { works, held }))
    }

    /// Connections that it has.
    pub(crate) fn len(&self) -> usize {
        self.0.held.load(Ordering::Relaxed)
    }

    /// Has `work` done to its end, or until the worker ends.
    pub(crate) fn spawn(&self, work: impl Future<Output = ()> + Send + 'static) {
        self.0.held.fetch_add(1, Ordering::Relaxed);
        // Refused only when the worker has ended, with all that it served.
        let _ = self.0.works.send(Box::pin(work));
    }
}

/// Serves what arrives until nothing is left, and nothing more can arrive.
async fn serve(mut arriving: UnboundedReceiver<Work>, held: Arc<AtomicUsize>) {
    let (left, mut works, mut ended) = (Arc::new(AtomicUsize::new(0)), FuturesUnordered::new(), false);
    poll_fn(|cx| {
        left.store(TURN, Ordering::Relaxed);
        while !ended {
            match arriving.poll_recv(cx) {
                Poll::Ready(Some(work)) => works.push(Turned { work, left: Arc::clone(&left) }),
                Poll::Ready(None) => ended = true,
                Poll::Pending => break,
            }
        }
        loop {
            match Pin::new(&mut works).poll_next(cx) {
                Poll::Ready(Some(())) => {
                    held.fetch_sub(1, Ordering::Relaxed);
                }
                Poll::Ready(None) if ended => return Poll::Ready(()),
                Poll::Ready(None) | Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await;
}

/// A connection that counts its polls.
struct Turned {
    work: Work,
    /// How many more are polled in this turn.
    left: Arc<AtomicUsize>,
}

impl Future for Turned {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let left = self.left.load(Ordering::Relaxed);
        if left == 0 {
            // Two of these end the turn: that is how FuturesUnordered knows that it should.
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        self.left.store(left - 1, Ordering::Relaxed);
        // The panic has been told of; what it leaves behind is dropped, and used no more.
        let polled = std::panic::catch_unwind(AssertUnwindSafe(|| self.work.as_mut().poll(cx)));
        polled.unwrap_or(Poll::Ready(()))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::sync::oneshot;
    use tokio::task::yield_now;
    use tokio::time::timeout;

    use super::*;

    const LIMIT: Duration = Duration::from_secs(30);

    async fn within<T>(work: impl Future<Output = T>) -> T {
        timeout(LIMIT, work).await.expect("it takes too long")
    }

    /// Goes to the end of the worker's queue. What yields to tokio goes behind what arrives by the network, too.
    async fn next_turn() {
        let mut had = false;
        poll_fn(|cx| {
            cx.waker().wake_by_ref();
            if std::mem::replace(&mut had, true) { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }

    /// However much of one share waits to be polled, others on the worker have their turn after a few polls of it.
    #[tokio::test]
    async fn a_crowded_share_leaves_others_their_turn() {
        const CROWD: usize = 1000;
        const FEW: usize = 32;
        let share = Share::on(&Handle::current());
        let polls = Arc::new(AtomicUsize::new(0));
        for _ in 0..CROWD {
            let polls = Arc::clone(&polls);
            share.spawn(async move {
                loop {
                    polls.fetch_add(1, Ordering::Relaxed);
                    yield_now().await;
                }
            });
        }
        // In a task, as what the others on a worker are. So often that all of the crowd has begun, and has begun again.
        let watch = tokio::spawn(async move {
            let mut before = 0;
            for _ in 0..CROWD {
                next_turn().await;
                let now = polls.load(Ordering::Relaxed);
                assert!(now - before <= FEW, "{} polls in one turn", now - before);
                before = now;
            }
            before
        });
        let polled = watch.await.unwrap();
        assert!(polled > CROWD * 2, "the crowd was polled {polled} times only");
    }

    /// Nobody of a share is forgotten: each ends, though its handles are gone and all want to be polled at once.
    #[tokio::test]
    async fn all_of_a_share_end_though_its_handles_are_gone() {
        let share = Share::on(&Handle::current());
        let ends: Vec<_> = (0..100_u32)
            .map(|number| {
                let (end, ended) = oneshot::channel();
                share.spawn(async move {
                    for _ in 0..number {
                        yield_now().await;
                    }
                    end.send(number).unwrap();
                });
                ended
            })
            .collect();
        drop(share);
        for (number, ended) in ends.into_iter().enumerate() {
            assert_eq!(within(ended).await.unwrap() as usize, number);
        }
        // Its task is gone, too.
        within(async {
            while Handle::current().metrics().num_alive_tasks() > 0 {
                yield_now().await;
            }
        })
        .await;
    }

    #[tokio::test]
    async fn a_panic_takes_nobody_along() {
        let share = Share::on(&Handle::current());
        let (end, ended) = oneshot::channel();
        let (go, gone) = oneshot::channel::<()>();
        share.spawn(async move {
            gone.await.unwrap();
            end.send(()).unwrap();
        });
        let (held, dropped) = oneshot::channel::<()>();
        share.spawn(async move {
            let _held = held;
            panic!("one of them, as it should in this test");
        });
        within(dropped).await.expect_err("what a panic leaves behind is dropped");
        go.send(()).unwrap();
        within(ended).await.unwrap();
    }

    /// A share that has nothing to do is woken by what comes.
    #[tokio::test]
    async fn what_comes_later_is_served() {
        let share = Share::on(&Handle::current());
        for _ in 0..3 {
            let (end, ended) = oneshot::channel();
            share.spawn(async move { end.send(()).unwrap() });
            within(ended).await.unwrap();
        }
    }
}
