//! The stream of states: server-sent events (WHATWG HTML, section 9.2), one task a watcher.
//!
//! Invariant: there are so many watchers and no more; who does not take a state in time loses its connection; and a watcher costs no
//! more than a fixed part of one processor, however large the node is.

use std::convert::Infallible;
use std::sync::Arc;

use axum::Extension;
use axum::body::{Body, Bytes};
use axum::extract::State as Of;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use tokio::sync::{OwnedSemaphorePermit, mpsc};
use tokio::time::Instant;

use super::figures::Figures;
use super::view::State;
use super::{Pace, Watching, assets};
use crate::admin::server::Conversation;
use crate::admin::{Admin, Shared, TEXT};

const EVENTS: &str = "text/event-stream; charset=utf-8";
/// Tells browsers how long to wait, in milliseconds, before they come again.
const AGAIN: &str = "retry: 2000\n\n";
const BUSY: &str = "as many watch as may; close another page, or try again later\n";

/// Answers with the stream.
pub(super) async fn answer(Of(shared): Of<Shared>, Extension(from): Extension<Conversation>) -> Response {
    let Watching { seats, pace } = shared.watching;
    let Ok(seat) = Arc::clone(&seats).try_acquire_owned() else {
        let mut response = (StatusCode::SERVICE_UNAVAILABLE, BUSY).into_response();
        assets::guarded(&mut response, TEXT);
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from_static("10"));
        return response;
    };
    // A state waits here while the one before it is written.
    let (sender, mut states) = mpsc::channel(1);
    tokio::spawn(Watcher { admin: shared.admin, sender, from, pace, _seat: seat }.tell());
    let states = stream::poll_fn(move |context| states.poll_recv(context));
    let mut response = Body::from_stream(states).into_response();
    assets::guarded(&mut response, EVENTS);
    response
}

struct Watcher {
    admin: Arc<Admin>,
    sender: mpsc::Sender<Result<Bytes, Infallible>>,
    from: Conversation,
    pace: Pace,
    _seat: OwnedSemaphorePermit,
}

impl Watcher {
    /// Tells until there is nobody to tell, or nobody who tells.
    async fn tell(mut self) {
        let end = Instant::now() + self.pace.longest;
        let mut before: Option<(Figures, Instant)> = None;
        if !self.send(Bytes::from_static(AGAIN.as_bytes())).await {
            return;
        }
        while Instant::now() < end {
            let began = Instant::now();
            let Some((event, figures)) = self.look(before.take(), began).await else { return };
            let spent = began.elapsed();
            if !self.send(event).await {
                return;
            }
            before = Some((figures, began));
            let pause = (spent * self.pace.share).max(self.pace.every).min(self.pace.at_most);
            tokio::select! {
                () = tokio::time::sleep(pause) => {}
                () = self.sender.closed() => return,
                () = self.from.over() => return,
            }
        }
    }

    /// The state of this moment as an event, and what the next one is compared with.
    async fn look(&self, before: Option<(Figures, Instant)>, at: Instant) -> Option<(Bytes, Figures)> {
        let admin = Arc::clone(&self.admin);
        // The metrics of a large node, and a mesh that is counted, take a while, for which nobody else should wait.
        let looked = tokio::task::spawn_blocking(move || -> serde_json::Result<(Bytes, Figures)> {
            let now = Figures::of(&admin.registry);
            let before = before.as_ref().map(|(figures, since)| (figures, at.duration_since(*since)));
            let mut event = b"event: state\ndata: ".to_vec();
            // JSON has no line breaks of its own.
            serde_json::to_writer(&mut event, &State::of(&admin, &now, before))?;
            event.extend_from_slice(b"\n\n");
            Ok((Bytes::from(event), now))
        });
        match looked.await {
            Ok(Ok(looked)) => Some(looked),
            Ok(Err(error)) => {
                tracing::warn!(%error, "the live page cannot be told the state");
                None
            }
            // The process ends, or a panic has been told.
            Err(_) => None,
        }
    }

    /// Whether it was taken.
    async fn send(&self, event: Bytes) -> bool {
        match tokio::time::timeout(self.pace.patience, self.sender.send(Ok(event))).await {
            Ok(sent) => sent.is_ok(),
            Err(_) => {
                tracing::debug!("a watcher of the live page does not read, and is left");
                self.from.hang_up();
                false
            }
        }
    }
}
