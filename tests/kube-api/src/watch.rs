//! A watch: changes after a version as they come, bookmarks between, until its time is over.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::body::Body;
use bytes::Bytes;
use futures_util::{Stream, stream};
use http::{HeaderValue, Response, header};
use serde_json::{Value, json};
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;

use crate::api::Shared;
use crate::error::Refusal;
use crate::path::Target;
use crate::select::Selector;
use crate::server::Query;
use crate::store::Change;

/// How often a bookmark is sent; a real server takes about a minute.
const BOOKMARK: Duration = Duration::from_secs(1);
/// How long a watch lasts that names no limit.
const DEFAULT_LIMIT: u64 = 300;

struct Watch {
    shared: Arc<Shared>,
    target: Target,
    selector: Selector,
    version: u64,
    bookmarks: bool,
    next_bookmark: Instant,
    ends: Instant,
    changed: watch::Receiver<u64>,
    hang_up: broadcast::Receiver<()>,
    is_over: bool,
}

/// Begins a watch.
pub(crate) fn start(
    shared: &Arc<Shared>,
    target: &Target,
    selector: &Selector,
    query: &Query,
) -> Result<Response<Body>, Refusal> {
    let version = match query.get("resourceVersion") {
        "" | "0" => shared.store().version(),
        text => text.parse().map_err(|_| Refusal::bad(format!("no resource version: {text}")))?,
    };
    let seconds = query.get("timeoutSeconds").parse().unwrap_or(DEFAULT_LIMIT);
    let now = Instant::now();
    let watch = Watch {
        shared: Arc::clone(shared),
        target: target.clone(),
        selector: selector.clone(),
        version,
        bookmarks: query.is_set("allowWatchBookmarks"),
        next_bookmark: now + BOOKMARK,
        ends: now + Duration::from_secs(seconds),
        changed: shared.changed.subscribe(),
        hang_up: shared.hang_up.subscribe(),
        is_over: false,
    };
    let mut response = Response::new(Body::from_stream(lines(watch)));
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// A body that breaks off.
pub(crate) fn cut() -> Body {
    let parts: [io::Result<Bytes>; 2] =
        [Ok(Bytes::from_static(b"{\"type\":")), Err(io::Error::other("a fault of the test"))];
    Body::from_stream(stream::iter(parts))
}

fn lines(watch: Watch) -> impl Stream<Item = io::Result<Bytes>> {
    stream::unfold(watch, |mut watch| async move {
        let text = watch.next().await?;
        Some((Ok(Bytes::from(text)), watch))
    })
}

impl Watch {
    /// What is to be sent next; none at the end.
    async fn next(&mut self) -> Option<String> {
        loop {
            if self.is_over {
                return None;
            }
            self.changed.borrow_and_update();
            if let Some(text) = self.news() {
                return Some(text);
            }
            tokio::select! {
                changed = self.changed.changed() => self.is_over = changed.is_err(),
                _ = self.hang_up.recv() => self.is_over = true,
                () = tokio::time::sleep_until(self.ends) => self.is_over = true,
                () = tokio::time::sleep_until(self.next_bookmark), if self.bookmarks => {
                    self.next_bookmark = Instant::now() + BOOKMARK;
                    return Some(self.bookmark());
                }
            }
        }
    }

    /// The changes since the last ones, as lines.
    fn news(&mut self) -> Option<String> {
        let shared = Arc::clone(&self.shared);
        let store = shared.store();
        let changes = match store.since(self.version) {
            Ok(changes) => changes,
            Err(refusal) => {
                self.is_over = true;
                return Some(line("ERROR", &refusal.object()));
            }
        };
        let text: String = changes.iter().filter_map(|change| self.told(change)).collect();
        self.version = changes.last().map_or(self.version, |change| change.version);
        (!text.is_empty()).then_some(text)
    }

    /// A change as this watch sees it: an object that begins or ceases to match was added or deleted, as far as it is concerned.
    fn told(&self, change: &Change) -> Option<String> {
        let namespace = change.object.pointer("/metadata/namespace").and_then(Value::as_str);
        let is_elsewhere =
            !self.target.namespace.is_empty() && namespace != Some(self.target.namespace.as_str());
        if change.resource != self.target.resource || is_elsewhere {
            return None;
        }
        let was = change.before.as_ref().is_some_and(|before| self.selector.matches(before));
        let is = !change.is_deleted && self.selector.matches(&change.object);
        match (was, is) {
            (false, true) => Some(line("ADDED", &change.object)),
            (true, true) => Some(line("MODIFIED", &change.object)),
            (true, false) => Some(line("DELETED", &change.object)),
            (false, false) => None,
        }
    }

    fn bookmark(&self) -> String {
        let object = json!({
            "kind": self.target.resource.kind,
            "apiVersion": self.target.resource.api_version,
            "metadata": {"resourceVersion": self.version.to_string()},
            "spec": {}, "status": {},
        });
        line("BOOKMARK", &object)
    }
}

fn line(kind: &str, object: &Value) -> String {
    format!("{}\n", json!({"type": kind, "object": object}))
}
