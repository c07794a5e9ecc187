//! The server's end: an accepted connection for which there was an offer.
//!
//! It is checked as a tunnel is, and then judged, delivered, told and cut exactly as a stream of a tunnel: see
//! [`crate::inbound`].

use std::io::{self, ErrorKind};
use std::time::Duration;

use http::StatusCode;
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio::time::timeout;

use super::GREETING;
use super::offers::{Answer, Offer, Taken, Token};
use crate::hbone::server::Asked;
use crate::inbound::{Arrival, Request};
use crate::relay::{self, Far};
use crate::scope::{Captured, Scope};
use crate::telemetry::{Reporter, Transport, failed};

/// What a connection that was offered asks for; it waits for its answer.
#[derive(Debug)]
pub(crate) struct DirectRequest {
    /// What it wants.
    pub(crate) asked: Box<Asked>,
    stream: TcpStream,
    answer: oneshot::Sender<Answer>,
}

/// Why an offered connection is not served.
#[derive(Debug, thiserror::Error)]
enum Unproven {
    #[error("io error: {0}")]
    Io(#[from] io::Error),
    #[error("the client sent nothing within {0:?}")]
    Silent(Duration),
    #[error("the client left before it was recognized")]
    Gone,
    #[error("this is not the connection that the agent made")]
    Imposter,
}

/// Serves one connection to its end.
pub(crate) async fn serve(scope: Scope, captured: Captured, taken: Taken) {
    let Captured { place: _place, stream, source, original_destination: connected } = captured;
    let Taken { offer: Offer { client, asked }, token, proven } = taken;
    let limit = scope.shared.config.timeouts.first_bytes;
    let proof = timeout(limit, prove(&stream, &token)).await.unwrap_or(Err(Unproven::Silent(limit)));
    if let Err(reason) = proof {
        failed(Reporter::Destination, source, connected, &reason);
        return relay::reset(stream);
    }
    let (answer, answered) = oneshot::channel();
    if proven.send(answered).is_err() {
        tracing::debug!(%source, "who made the connection has given it up");
        return relay::reset(stream);
    }
    let arrival = Arrival { scope, source, connected, client, transport: Transport::Direct, session: None };
    arrival.connect(Request::Direct(DirectRequest { asked, stream, answer })).await;
}

/// Reads what a connection of ours begins with, and no byte more.
async fn prove(stream: &TcpStream, token: &Token) -> Result<(), Unproven> {
    let mut sent = [0; GREETING.len() + size_of::<Token>()];
    let mut length = 0;
    while length < sent.len() {
        stream.readable().await?;
        match stream.try_read(sent.get_mut(length..).unwrap_or_default()) {
            Ok(0) => return Err(Unproven::Gone),
            Ok(count) => length += count,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {}
            Err(error) => return Err(error.into()),
        }
    }
    // All bytes are looked at, whichever differs.
    let expected = GREETING.iter().chain(token);
    let differing = sent.iter().zip(expected).fold(0, |all, (one, other)| all | (one ^ other));
    if differing == 0 { Ok(()) } else { Err(Unproven::Imposter) }
}

impl DirectRequest {
    /// Completes when who made the connection gives up waiting.
    pub(crate) async fn gone(&mut self) {
        self.answer.closed().await;
    }

    /// Refuses the connection.
    pub(crate) fn refuse(self, status: StatusCode) {
        // If nobody waits any more there is nobody to tell.
        let _ = self.answer.send(Err(status));
    }

    /// Answers that the application has accepted; `None` if nobody waits for it any more.
    pub(crate) fn accept(self) -> Option<Far> {
        self.answer.send(Ok(())).ok()?;
        Some(Far::Tcp(self.stream))
    }
}
