//! `/ui`: a page that shows what happens on this node while somebody looks, and the stream that feeds it.
//!
//! Everything that the page is made of is in this program; its browser may ask for nothing else, and run no other code, by the policy that
//! is sent with each part. Invariant: while nobody watches, nothing of this runs.

pub(super) mod assets;
mod edges;
mod exposition;
mod figures;
mod stream;
mod view;

use std::sync::Arc;
use std::time::Duration;

use axum::Router;
use axum::routing::get;
use tokio::sync::Semaphore;

use super::Shared;

/// How the page is kept up to date.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    /// Time between two states that are told.
    pub(super) every: Duration,
    /// The same, where telling takes long: no more than one part in so many of the time is spent on it.
    pub(super) share: u32,
    /// The longest time between two: who hears nothing for longer has lost the agent.
    pub(super) at_most: Duration,
    /// How long a state may wait for a slow reader.
    pub(super) patience: Duration,
    /// How long one stream lives; browsers come again. Less than any connection may last.
    pub(super) longest: Duration,
}

/// Watchers at once, of the connections that the interface has.
pub(super) const WATCHERS: usize = 4;
pub(super) const PACE: Pace = Pace {
    every: Duration::from_secs(2),
    share: 20,
    at_most: Duration::from_secs(10),
    patience: Duration::from_secs(20),
    longest: Duration::from_secs(540),
};

/// What all watchers have in common.
#[derive(Clone)]
pub(super) struct Watching {
    pub(super) seats: Arc<Semaphore>,
    pub(super) pace: Pace,
}

impl Default for Watching {
    fn default() -> Self {
        Self { seats: Arc::new(Semaphore::new(WATCHERS)), pace: PACE }
    }
}

/// The page, its parts, and its stream.
pub(super) fn routes() -> Router<Shared> {
    let parts = assets::PARTS.iter().fold(Router::new(), |router, part| {
        router.route(part.path, get(move || std::future::ready(assets::answer(part))))
    });
    parts.route("/ui/events", get(stream::answer))
}
