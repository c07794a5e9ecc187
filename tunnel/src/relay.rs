//! Moves bytes between an accepted connection and where it goes, both ways at once.
//!
//! Owns both ends until they have ended. Invariants: bytes arrive in order, unchanged, or not at all; a
//! finished direction is passed on as such while the other goes on (half-close); a reset stays a reset:
//! a TCP RST becomes RST_STREAM(CONNECT_ERROR) in the tunnel (RFC 9113 §8.5) and the other way round,
//! while NO_ERROR and CANCEL read as a clean end. What this agent itself cuts, by policy or for a revoked certificate, says so by a
//! code of its own, so that the agent of the other end need not take it for the application's reset. An idle relay holds no buffer; one that outlives its limits is cut. What a
//! slow reader keeps waiting in a tunnel is claimed from the tunnel's windows, so that its neighbours have theirs, and is taken
//! off the HTTP/2 connection, which would break with all its streams if too many small frames were left on it.

mod backlog;
mod buffer;
mod counters;
mod limits;
mod tcp;
#[cfg(test)]
mod tests;

use std::future::{Future, pending, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::time::Duration;

use bytes::{Buf, Bytes};
use h2::{FlowControl, Reason, RecvStream, SendStream};
use tokio::net::TcpStream;
use tokio::time::{Sleep, sleep};

pub(crate) use buffer::{BUFFER_SIZE, Buffer};
pub(crate) use counters::{Counters, Meter};
pub(crate) use tcp::{reset, reset_by_peer, write};

use self::backlog::Backlog;
use self::limits::{Lane, exceeded};
use self::tcp::Read;
use crate::config::Timeouts;
use crate::hbone::HboneStream;
use crate::hbone::strain::Strain;

/// How long a reader may take for what came, before it counts as one that has stopped.
const STALLED: Duration = Duration::from_millis(100);

/// What a stream ends with that is cut: "does not meet minimum security requirements" (RFC 9113 section 7).
const CUT: Reason = Reason::INADEQUATE_SECURITY;

/// Why a relay ended before both directions were finished.
#[derive(Debug, thiserror::Error)]
pub enum RelayError {
    /// A TCP end was reset or failed.
    #[error("io error: {0}")]
    Tcp(#[from] io::Error),
    /// The peer reset its stream in the tunnel, as it does when its own TCP end was reset.
    #[error("stream reset by the peer: {0}")]
    StreamReset(Reason),
    /// The peer's agent cut it.
    #[error(
        "cut by the peer: its policy or its list of revoked certificates has come to refuse the connection"
    )]
    CutByPeer,
    /// The connection that carries the stream is gone.
    #[error("tunnel lost: {0}")]
    TunnelLost(h2::Error),
    /// Nothing has moved in either direction.
    #[error("connection idle for longer than {0:?}")]
    Idle(Duration),
    /// One direction has ended, and nothing came in the other one.
    #[error("half-closed connection idle for longer than {0:?}")]
    HalfClosed(Duration),
    /// One end does not read what is sent to it.
    #[error("the receiver took nothing for longer than {0:?}")]
    Stalled(Duration),
}

impl RelayError {
    /// Whether an end user's reset was passed on, which is no fault of the mesh.
    pub(crate) fn is_reset(&self) -> bool {
        match self {
            Self::Tcp(error) => {
                matches!(error.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
            }
            Self::StreamReset(_) => true,
            Self::CutByPeer
            | Self::TunnelLost(_)
            | Self::Idle(_)
            | Self::HalfClosed(_)
            | Self::Stalled(_) => false,
        }
    }
}

/// The far end of a captured or delivered connection.
#[derive(Debug)]
pub(crate) enum Far {
    /// A plain connection.
    Tcp(TcpStream),
    /// A stream in a tunnel.
    Stream(HboneStream),
}

impl Far {
    /// Ends it as a TCP reset would; a stream says `reason`.
    fn reset(self, reason: Reason) {
        match self {
            Self::Tcp(stream) => tcp::reset(stream),
            Self::Stream(mut stream) => stream.send.send_reset(reason),
        }
    }
}

/// Relays until both directions have ended, one end breaks, a limit is exceeded, or `cut` completes with an error of its
/// own.
///
/// `counters` counts what `near` sent and received. On anything but a clean end both ends are reset.
pub(crate) async fn run<E: From<RelayError>>(
    near: TcpStream,
    mut far: Far,
    counters: &Counters,
    limits: &Timeouts,
    cut: impl Future<Output = E>,
) -> Result<(), E> {
    let lanes = [Lane::default(), Lane::default()];
    let (result, reason) = tokio::select! {
        biased;
        error = cut => (Err(error), CUT),
        result = both_ways(&near, &mut far, counters, &lanes) => (result.map_err(E::from), Reason::CONNECT_ERROR),
        error = exceeded(limits, &lanes) => (Err(error.into()), Reason::CONNECT_ERROR),
    };
    if result.is_err() {
        tcp::reset(near);
        far.reset(reason);
    }
    result
}

async fn both_ways(
    near: &TcpStream,
    far: &mut Far,
    counters: &Counters,
    [there, back]: &[Lane; 2],
) -> Result<(), RelayError> {
    let (there, back) =
        (Track { meter: &counters.sent, lane: there }, Track { meter: &counters.received, lane: back });
    match far {
        Far::Tcp(far) => {
            let far = &*far;
            join(
                pin!(tcp_to_tcp(near, far, there)),
                pin!(tcp_to_tcp(far, near, back)),
                pin!(async { tcp::broken(near).await.into() }),
                pin!(async { tcp::broken(far).await.into() }),
            )
            .await
        }
        Far::Stream(stream) => {
            let strain = stream.strain.as_deref();
            join(
                pin!(tcp_to_stream(near, &mut stream.send, there, strain)),
                pin!(stream_to_tcp(&mut stream.recv, near, back, strain)),
                pin!(async { tcp::broken(near).await.into() }),
                pin!(pending()),
            )
            .await
        }
    }
}

/// Drives both directions; when one has finished, `*_broken` says that its source died all the same.
///
/// The futures come pinned, so that they are not stored twice in every connection's task.
async fn join(
    mut forward: Pin<&mut impl Future<Output = Result<(), RelayError>>>,
    mut backward: Pin<&mut impl Future<Output = Result<(), RelayError>>>,
    mut forward_broken: Pin<&mut impl Future<Output = RelayError>>,
    mut backward_broken: Pin<&mut impl Future<Output = RelayError>>,
) -> Result<(), RelayError> {
    let (mut forward_open, mut backward_open) = (true, true);
    while forward_open || backward_open {
        tokio::select! {
            // None of them is done before its end, so each gets its turn.
            biased;
            result = &mut forward, if forward_open => { result?; forward_open = false; }
            result = &mut backward, if backward_open => { result?; backward_open = false; }
            error = &mut forward_broken, if !forward_open => return Err(error),
            error = &mut backward_broken, if !backward_open => return Err(error),
        }
    }
    Ok(())
}

/// Where a direction notes what it does.
#[derive(Clone, Copy)]
struct Track<'a> {
    meter: &'a Meter,
    lane: &'a Lane,
}

async fn tcp_to_tcp(from: &TcpStream, to: &TcpStream, track: Track<'_>) -> Result<(), RelayError> {
    loop {
        let Read { bytes, end } = tcp::read(from).await?;
        track.meter.add(bytes.remaining());
        tcp::pass(to, bytes, track.lane).await?;
        if let Some(end) = end {
            end?;
            track.lane.done();
            return Ok(tcp::finish(to)?);
        }
    }
}

async fn tcp_to_stream(
    from: &TcpStream,
    to: &mut SendStream<Buffer>,
    Track { meter, lane }: Track<'_>,
    strain: Option<&Arc<Strain>>,
) -> Result<(), RelayError> {
    loop {
        let Read { bytes, end } = tokio::select! {
            biased;
            reason = poll_fn(|cx| to.poll_reset(cx)) => return ended(reason),
            read = tcp::read(from) => read?,
        };
        if bytes.is_empty() {
            end.transpose()?;
            lane.done();
            return to.send_data(bytes, true).map_err(RelayError::TunnelLost);
        }
        meter.add(bytes.remaining());
        to.reserve_capacity(bytes.remaining());
        let _waiting = strain.filter(|_| to.capacity() == 0).map(|strain| strain.wait());
        while to.capacity() == 0 {
            lane.blocked();
            match poll_fn(|cx| to.poll_capacity(cx)).await {
                Some(Ok(_)) => {}
                Some(Err(error)) => return ended(Err(error)),
                None => return ended(poll_fn(|cx| to.poll_reset(cx)).await),
            }
        }
        // With any capacity the whole buffer may go: the excess waits inside h2, one buffer a stream.
        if let Err(error) = to.send_data(bytes, matches!(end, Some(Ok(())))) {
            return ended(Err(error));
        }
        lane.moved();
        if let Some(end) = end {
            lane.done();
            return Ok(end?);
        }
    }
}

async fn stream_to_tcp(
    from: &mut RecvStream,
    to: &TcpStream,
    Track { meter, lane }: Track<'_>,
    strain: Option<&Arc<Strain>>,
) -> Result<(), RelayError> {
    let mut flow = from.flow_control().clone();
    let (mut backlog, mut open) = (Backlog::default(), true);
    let (mut claim, mut stalled) = (None, None);
    while open || backlog.has_remaining() {
        let more = if backlog.has_remaining() {
            tokio::select! {
                biased;
                ready = poll_fn(|cx| to.poll_write_ready(cx)) => {
                    ready?;
                    None
                }
                more = next(from), if open => Some(more?),
                () = falls_behind(&flow, &mut stalled), if claim.is_none() && strain.is_some() => {
                    claim = strain.map(|strain| Box::new(strain.claim(&flow)));
                    continue;
                }
            }
        } else {
            Some(next(from).await?)
        };
        match more {
            Some(Some(data)) => {
                meter.add(data.len());
                backlog.push(data);
            }
            Some(None) => open = false,
            None => {}
        }
        let waiting = backlog.remaining();
        tcp::fit(to, &mut backlog, lane)?;
        let written = waiting - backlog.remaining();
        if written > 0 {
            stalled = None;
            flow.release_capacity(written).map_err(RelayError::TunnelLost)?;
            claim = claim.filter(|_| has_filled(&flow, 8));
        }
    }
    lane.done();
    Ok(tcp::finish(to)?)
}

/// What comes next in the tunnel; `None` at the end.
async fn next(from: &mut RecvStream) -> Result<Option<Bytes>, RelayError> {
    match from.data().await {
        Some(Ok(data)) => Ok(Some(data)),
        Some(Err(error)) => ended(Err(error)).map(|()| None),
        None => Ok(None),
    }
}

/// Completes when a reader that does not take what comes keeps much of it waiting, or has not taken any for a while.
async fn falls_behind(flow: &FlowControl, stalled: &mut Option<Pin<Box<Sleep>>>) {
    if !has_filled(flow, 4) {
        // Boxed: a timer is large, and readers that stop are few.
        stalled.get_or_insert_with(|| Box::pin(sleep(STALLED))).await;
    }
}

/// Whether what waits for its reader has used up one part in `parts` of the stream's window.
fn has_filled(flow: &FlowControl, parts: usize) -> bool {
    let used = flow.used_capacity();
    let room = usize::try_from(flow.available_capacity()).unwrap_or(0);
    used.saturating_mul(parts) >= used.saturating_add(room)
}

/// Tells the peer's "I am done with this stream" from a reset, and both from a lost tunnel.
fn ended(end: Result<Reason, h2::Error>) -> Result<(), RelayError> {
    let reason = match end {
        Ok(reason) => reason,
        Err(error) if error.is_reset() => error.reason().unwrap_or(Reason::INTERNAL_ERROR),
        Err(error) => return Err(RelayError::TunnelLost(error)),
    };
    match reason {
        Reason::NO_ERROR | Reason::CANCEL => Ok(()),
        CUT => Err(RelayError::CutByPeer),
        reason => Err(RelayError::StreamReset(reason)),
    }
}
