//! `/ask`: what the command line asks on the Unix socket, asked from another machine through a forwarded port.
//!
//! The same questions and answers, one answer a line of JSON. Invariants: what is asked here changes no more than the paths beside it do; an
//! answer waits for its reader, but not for long, and holds up nobody else's. A page of a browser cannot ask: the content type that it
//! must have is one that a browser does not send elsewhere unasked. Before the agent can answer it says so.

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use futures_util::stream;
use tokio::runtime::Handle;
use tokio::sync::mpsc;

use super::{Shared, TEXT};
use crate::admin_socket::Respond;
use crate::admin_socket::protocol::{Answer, Request};

/// Questions that are answered at once.
pub(super) const AT_ONCE: usize = 4;
/// Parts of an answer that wait to be read.
const AHEAD: usize = 16;
/// How long one part may wait for that.
const PATIENCE: Duration = Duration::from_secs(5);
/// The media type of a question.
const JSON: &str = "application/json";
/// That of an answer: one JSON object a line.
const LINES: &str = "application/x-ndjson";

/// Who answers, once the agent is so far.
pub(crate) type Answers = Arc<OnceLock<Arc<Respond>>>;

/// Answers a question.
pub(super) async fn answer(State(shared): State<Shared>, headers: HeaderMap, body: Bytes) -> Response {
    let content = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok());
    if content.is_none_or(|content| content.split(';').next().map(str::trim) != Some(JSON)) {
        return refusal(StatusCode::UNSUPPORTED_MEDIA_TYPE, "a question is application/json");
    }
    let Some(respond) = shared.admin.answers.get().cloned() else {
        let why = "the agent is not so far yet that it can answer, or istio-cni captures its pods; ask again, or ask its readiness";
        return refusal(StatusCode::SERVICE_UNAVAILABLE, why);
    };
    let Ok(permit) = Arc::clone(&shared.asking).try_acquire_owned() else {
        return refusal(StatusCode::TOO_MANY_REQUESTS, "too many are asking; ask again");
    };
    let request = match Request::decode(&body) {
        Ok(request) => request,
        Err(error) => return refusal(StatusCode::BAD_REQUEST, &error.to_string()),
    };
    let (sender, mut receiver) = mpsc::channel::<Result<Bytes, io::Error>>(AHEAD);
    let runtime = Handle::current();
    tokio::task::spawn_blocking(move || {
        let _permit = permit;
        let mut send = |answer: Answer| {
            let mut line = answer.encode()?;
            line.push(b'\n');
            let sent = runtime.block_on(tokio::time::timeout(PATIENCE, sender.send(Ok(line.into()))));
            match sent {
                Ok(Ok(())) => Ok(()),
                Ok(Err(_)) => Err(io::Error::new(io::ErrorKind::BrokenPipe, "whoever asked has gone")),
                Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, "the answer was taken too slowly")),
            }
        };
        // An answer without its end is one that was broken off; whoever asked sees that.
        if let Err(error) = respond(&request, &mut send).and_then(|()| send(Answer::End)) {
            tracing::debug!(%error, "a question was not answered to the end");
        }
    });
    let lines = stream::poll_fn(move |context| receiver.poll_recv(context));
    ([(header::CONTENT_TYPE, LINES)], Body::from_stream(lines)).into_response()
}

fn refusal(status: StatusCode, why: &str) -> Response {
    (status, [(header::CONTENT_TYPE, TEXT)], format!("{why}\n")).into_response()
}
