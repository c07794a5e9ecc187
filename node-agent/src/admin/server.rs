//! Serves HTTP/1 on listeners, with a limit on everything that a caller can spend.
//!
//! Invariant: however many connect and however slowly they speak, connections, and the time that each has, are bounded, and nobody
//! is kept out by those who say nothing: see [`Seats`].

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

use super::seats::{Seat, Seats};

/// How long nothing is accepted after that has failed, as for want of descriptors.
const PAUSE: Duration = Duration::from_millis(200);
/// How long a request that is under way may go on after its connection's time is over.
const GRACE: Duration = Duration::from_secs(10);

/// What callers may spend.
#[derive(Clone, Copy, Debug)]
pub(super) struct Limits {
    /// Connections at once.
    pub(super) connections: usize,
    /// Time for the head of a request.
    pub(super) headers: Duration,
    /// Time of a connection as a whole.
    pub(super) connection: Duration,
    /// Whether a connection carries more than one request.
    pub(super) keep_alive: bool,
}

/// Serves until the process ends, or until this is dropped, which ends open connections.
pub(super) async fn serve(listeners: Vec<TcpListener>, app: Router, limits: Limits) -> io::Result<()> {
    let seats = Seats::new(limits.connections);
    let mut loops = JoinSet::new();
    for listener in listeners {
        loops.spawn(accept(listener, app.clone(), Arc::clone(&seats), limits));
    }
    match loops.join_next().await {
        Some(Err(error)) => Err(error.into()),
        Some(Ok(())) | None => Ok(()),
    }
}

async fn accept(listener: TcpListener, app: Router, seats: Arc<Seats>, limits: Limits) {
    let mut connections = JoinSet::new();
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let Some(seat) = seats.take().await else { return };
                connections.spawn(converse(stream, app.clone(), seat, limits));
            }
            Err(error) => {
                tracing::debug!(%error, "no connection accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
        while connections.try_join_next().is_some() {}
    }
}

/// Answers on one connection. That it breaks is its caller's affair.
async fn converse(stream: TcpStream, app: Router, seat: Seat, limits: Limits) {
    let app = TowerToHyperService::new(app);
    let answer = service_fn(|request| {
        let answering = seat.answering();
        let answer = app.call(request);
        async move {
            let answer = answer.await;
            // Where nothing more is asked, the answer may be long and its reader slow.
            if limits.keep_alive {
                answering.done();
            }
            answer
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(limits.headers)
        .keep_alive(limits.keep_alive)
        .serve_connection(TokioIo::new(stream), answer);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = seat.wanted() => return tracing::debug!("a caller that kept silent made room for another"),
        () = tokio::time::sleep(limits.connection) => {
            connection.as_mut().graceful_shutdown();
            match tokio::time::timeout(GRACE, connection).await {
                Ok(ended) => ended,
                Err(_) => return tracing::debug!("a request took too long"),
            }
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended early");
    }
}
