//! A listener of a pod that is served.
//!
//! Its connections are accepted by the pod's worker, and as long as they are a crowd by the one beside it: so that worker has no part in them.
//!
//! Invariant: one worker at a time accepts, and what comes meanwhile waits in the kernel's queue.

use std::net::TcpListener;
use std::ops::ControlFlow;
use std::sync::{Arc, OnceLock, Weak};
use std::time::Instant;

use crate::Kind;
use crate::accept::{Accepted, accept};
use crate::dealer::{Dealer, Dealt};
use crate::relay;
use crate::scope::{Scope, Shared};
use crate::seat::{Duty, Seat, Seats};
use crate::served::Served;
use crate::share::Share;
use crate::worker::Workers;

/// One listener.
pub(crate) struct Listening {
    listener: TcpListener,
    /// The worker that accepts now.
    seat: Seat,
    desk: Desk,
}

/// Who takes its connections.
struct Desk {
    kind: Kind,
    shared: Arc<Shared>,
    served: Arc<Served>,
    workers: Weak<Workers>,
    dealer: Dealer,
}

impl Listening {
    /// A listener of a pod, to be accepted from by the worker `home`.
    pub(crate) fn new(
        (listener, kind): (TcpListener, Kind),
        home: Seat,
        (shared, served): (&Arc<Shared>, &Arc<Served>),
        (workers, shares): (&Arc<Workers>, &Arc<Seats<OnceLock<Share>>>),
    ) -> Self {
        let desk = Desk {
            kind,
            shared: Arc::clone(shared),
            served: Arc::clone(served),
            workers: Arc::downgrade(workers),
            dealer: Dealer::new(home, Arc::clone(shares), matches!(kind, Kind::Hbone), Instant::now()),
        };
        Self { listener, seat: home, desk }
    }

    /// Accepts until the pod is stopped.
    pub(crate) fn start(self, workers: &Workers) {
        let Some(worker) = workers.get(self.seat) else { return };
        let Self { listener, mut seat, mut desk } = self;
        worker.runtime.spawn(async move {
            let serving = desk.served.serving.clone();
            let deal = |accepted| desk.deal(accepted, &mut seat);
            let Some(listener) = accept(listener, serving, deal).await else { return };
            if let Some(workers) = desk.workers.upgrade() {
                let what = if seat.duty == Duty::Crowds { "a crowd has come" } else { "a crowd is over" };
                tracing::debug!(pod = ?desk.served.pod, "{what}");
                Self { listener, seat, desk }.start(&workers);
            }
        });
    }
}

impl Desk {
    /// Hands a connection to a worker. Breaks if another worker is to accept from now on, which `seat` names then.
    fn deal(&mut self, accepted: Accepted, seat: &mut Seat) -> ControlFlow<()> {
        let Accepted { stream, source, turn, backlog } = accepted;
        let (now, go_on) = (Instant::now(), ControlFlow::Continue(()));
        let Some(workers) = self.workers.upgrade() else { return go_on };
        let known = matches!(self.kind, Kind::Hbone) && self.served.crowds.come_from(source.ip(), now);
        let whose = |duty| workers.turn(if known { Duty::Crowds } else { duty });
        let Some(Dealt { to, share, acceptor }) = self.dealer.next((backlog, now), whose) else {
            return go_on;
        };
        match (self.served.gate.place(source), workers.get(to)) {
            (Some(place), Some(worker)) => {
                let (shared, served) = (Arc::clone(&self.shared), Arc::clone(&self.served));
                let scope = Scope { shared, served, pool: worker.pool.clone() };
                let share = share.get_or_init(|| Share::on(&worker.runtime));
                share.spawn(self.kind.serve(scope, (stream, source), place, turn));
            }
            _ => relay::reset(stream),
        }
        if acceptor == *seat {
            return go_on;
        }
        *seat = acceptor;
        ControlFlow::Break(())
    }
}
