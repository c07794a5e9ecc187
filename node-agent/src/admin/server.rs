//! Serves HTTP/1 on listeners, with a limit on everything that a caller can spend.
//!
//! Invariant: however many connect and however slowly they speak, connections, and the time that each has, are bounded, and nobody
//! is kept out by those who say nothing: see [`Seats`].

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use hyper::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::{Service as _, service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::task::JoinSet;

use super::seats::{HangUp, Seat, Seats};

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

/// The connection that a request came on, found among the request's extensions: for answers that have no end of their own.
#[derive(Clone)]
pub(super) struct Conversation {
    hang_up: HangUp,
    ending: watch::Receiver<()>,
}

impl Conversation {
    /// Completes when nobody serves any more: the process ends, or another agent has taken over.
    pub(super) async fn over(&mut self) {
        // No value is ever sent.
        let _ = self.ending.changed().await;
    }

    /// Ends the connection, though the answer was not taken to its end.
    pub(super) fn hang_up(&self) {
        self.hang_up.now();
    }
}

/// Serves until the process ends, or until this is dropped. Nobody is let in then any more, and who is in gets one answer within
/// the limits: of two agents of which one takes over, the old one may have let somebody in at the last moment.
pub(super) async fn serve(listeners: Vec<TcpListener>, app: Router, limits: Limits) -> io::Result<()> {
    let seats = Seats::new(limits.connections);
    let (_serving, ending) = watch::channel(());
    let mut loops = JoinSet::new();
    for listener in listeners {
        loops.spawn(accept(listener, app.clone(), (Arc::clone(&seats), ending.clone()), limits));
    }
    match loops.join_next().await {
        Some(Err(error)) => Err(error.into()),
        Some(Ok(())) | None => Ok(()),
    }
}

async fn accept(
    listener: TcpListener,
    app: Router,
    (seats, ending): (Arc<Seats>, watch::Receiver<()>),
    limits: Limits,
) {
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let Some(seat) = seats.take().await else { return };
                tokio::spawn(converse(stream, app.clone(), (seat, ending.clone()), limits));
            }
            Err(error) => {
                tracing::debug!(%error, "no connection accepted");
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Answers on one connection, until the sender of `ending` is gone. That it breaks is its caller's affair.
async fn converse(
    stream: TcpStream,
    app: Router,
    (seat, mut ending): (Seat, watch::Receiver<()>),
    limits: Limits,
) {
    let app = TowerToHyperService::new(app);
    let conversation = Conversation { hang_up: seat.hang_up(), ending: ending.clone() };
    let answer = service_fn(|mut request: Request<Incoming>| {
        let answering = seat.answering();
        request.extensions_mut().insert(conversation.clone());
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
    // No value is ever sent: nobody serves any more, or the time is over.
    let over = tokio::time::timeout(limits.connection, ending.changed());
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = seat.wanted() => return tracing::debug!("a caller that kept silent or did not read was left"),
        _ = over => {
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

#[cfg(test)]
mod tests {
    use axum::routing::get;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::sync::Semaphore;
    use tokio::time::timeout;

    use super::*;

    const SECONDS: Duration = Duration::from_secs(20);

    #[tokio::test]
    async fn who_is_in_when_it_ends_gets_an_answer() {
        let listener = TcpListener::bind("[::1]:0").await.unwrap();
        let to = listener.local_addr().unwrap();
        let (asked, may) = (Arc::new(Semaphore::new(0)), Arc::new(Semaphore::new(0)));
        let answer = {
            let (asked, may) = (Arc::clone(&asked), Arc::clone(&may));
            move || async move {
                asked.add_permits(1);
                may.acquire().await.unwrap().forget();
                "answered"
            }
        };
        let limits = Limits { connections: 4, headers: SECONDS, connection: SECONDS, keep_alive: true };
        let server = tokio::spawn(serve(vec![listener], Router::new().route("/", get(answer)), limits));
        let mut caller = TcpStream::connect(to).await.unwrap();
        caller.write_all(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n").await.unwrap();
        timeout(SECONDS, asked.acquire()).await.unwrap().unwrap().forget();
        server.abort();
        assert!(server.await.unwrap_err().is_cancelled());
        may.add_permits(1);
        let mut got = String::new();
        // Its end follows, though it might have asked for more.
        timeout(SECONDS, caller.read_to_string(&mut got)).await.unwrap().unwrap();
        assert!(got.starts_with("HTTP/1.1 200") && got.ends_with("answered"), "{got}");
        assert!(TcpStream::connect(to).await.is_err(), "nobody is let in any more");
    }
}
