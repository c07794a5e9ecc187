//! The agent's HTTP endpoints: the admin interface on this host's loopback, readiness and metrics on ports of their own.
//!
//! All run on the control runtime, each with a limit of connections and of time. Asking changes nothing but what the
//! request is there to change, and nothing asked here holds up the data path: a dump reads an immutable snapshot, and is
//! written piece by piece, as fast as the one who asked reads. A port that is taken is an error at start, never later.

mod address;
mod ask;
mod dump;
mod guard;
mod index;
mod levels;
mod live;
mod node;
mod ports;
mod profile;
mod scrape;
mod seats;
mod server;
#[cfg(test)]
pub(crate) mod tests;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::DefaultBodyLimit;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::{get, post};
use axum::{Router, middleware};
use mesh::Store;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;
use tokio::sync::{Notify, Semaphore};

use crate::events::Events;
use crate::logging::Levels;
use crate::readiness::Readiness;

pub(crate) use address::AdminAddress;
pub(crate) use ask::Answers;
pub(crate) use dump::moment;
pub(crate) use node::{Agent, Node};
pub(crate) use ports::{bind, bind_admin, serve_metrics, serve_readiness};
use server::Limits;

const TEXT: &str = "text/plain; charset=utf-8";
/// A profile may take five minutes, and a dump as long as the one who asked takes to read it.
const LIMITS: Limits = Limits {
    connections: 16,
    headers: Duration::from_secs(10),
    connection: Duration::from_secs(600),
    keep_alive: false,
};

/// What the admin interface shows, and what it can do.
pub(crate) struct Admin {
    /// The mesh.
    pub(crate) store: Arc<Store>,
    /// Whether the mesh is what a file says, and nothing else.
    pub(crate) mesh_is_given: bool,
    /// This node's pods, connections and certificates.
    pub(crate) node: Arc<dyn Node>,
    /// The effective configuration, without secrets.
    pub(crate) config: serde_json::Value,
    /// What is logged.
    pub(crate) levels: Levels,
    /// What was logged lately.
    pub(crate) events: Events,
    /// The metrics.
    pub(crate) registry: Arc<Registry>,
    /// What is still waited for before the agent is ready.
    pub(crate) readiness: Readiness,
    /// Told when the agent is to end.
    pub(crate) quit: Arc<Notify>,
    /// Who answers what the command line asks.
    pub(crate) answers: Answers,
}

#[derive(Clone)]
struct Shared {
    admin: Arc<Admin>,
    /// One profile is made at a time.
    profiling: Arc<Semaphore>,
    /// So many questions are answered at once.
    asking: Arc<Semaphore>,
    watching: live::Watching,
}

/// Serves the admin interface until the process ends.
pub(crate) async fn serve(listeners: Vec<TcpListener>, admin: Admin) -> io::Result<()> {
    server::serve(listeners, router(admin, live::Watching::default()), LIMITS).await
}

fn router(admin: Admin, watching: live::Watching) -> Router {
    let shared = Shared {
        admin: Arc::new(admin),
        profiling: Arc::new(Semaphore::new(1)),
        asking: Arc::new(Semaphore::new(ask::AT_ONCE)),
        watching,
    };
    Router::new()
        .route("/", get(index::page))
        .route("/config_dump", get(dump::answer).post(dump::answer))
        .route("/ask", post(ask::answer).layer(DefaultBodyLimit::max(guard::MAX_BODY)))
        .route("/logging", post(levels::change).fallback(levels::usage))
        .route("/quitquitquit", post(quit))
        .route("/debug/pprof/profile", get(profile::processor))
        .route("/debug/pprof/heap", get(profile::heap))
        .merge(live::routes())
        .layer(middleware::from_fn(guard::check))
        .with_state(shared)
}

async fn quit(axum::extract::State(shared): axum::extract::State<Shared>) -> impl IntoResponse {
    tracing::info!("told to end by the admin interface");
    // Kept until somebody waits for it, so it is not lost while the agent is still starting.
    shared.admin.quit.notify_one();
    (StatusCode::OK, [(header::CONTENT_TYPE, TEXT)], "shutting down now\n")
}
