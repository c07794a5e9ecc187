//! The agent's HTTP endpoints: readiness on one port, metrics on another, as probes and scrapers expect them.
//!
//! Both run on the control runtime. A port that is taken is an error at start, never later.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;

use anyhow::Context as _;
use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use prometheus_client::registry::Registry;
use tokio::net::TcpListener;

use crate::readiness::Readiness;

const OPEN_METRICS: &str = "application/openmetrics-text;charset=utf-8;version=1.0.0";
const TEXT: &str = "text/plain; charset=utf-8";

/// Binds a server's port, without IPv6 where the kernel has none; or takes the socket of the agent before this one, if that
/// is at the same port.
pub(crate) async fn bind(
    what: &str,
    address: SocketAddr,
    inherited: Option<OwnedFd>,
) -> anyhow::Result<TcpListener> {
    if let Some(descriptor) = inherited {
        let listener = std::net::TcpListener::from(descriptor);
        if listener.local_addr().is_ok_and(|inherited| is_same(inherited, address)) {
            return Ok(TcpListener::from_std(listener)?);
        }
    }
    let bound = match TcpListener::bind(address).await {
        Err(error) if address.is_ipv6() && address.ip().is_unspecified() && is_without_ipv6(&error) => {
            TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).await
        }
        other => other,
    };
    bound.with_context(|| {
        format!(
            "cannot listen on {address} for {what}; is the port taken? Choose another with --{what}-address"
        )
    })
}

/// The same port at the same address; any address is one, be it IPv4's for want of IPv6.
fn is_same(inherited: SocketAddr, wanted: SocketAddr) -> bool {
    let both_any = inherited.ip().is_unspecified() && wanted.ip().is_unspecified();
    inherited.port() == wanted.port() && (both_any || inherited.ip() == wanted.ip())
}

fn is_without_ipv6(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::AddrNotAvailable | io::ErrorKind::Unsupported)
}

/// Serves `/healthz/ready` until the process ends.
pub(crate) async fn serve_readiness(listener: TcpListener, readiness: Readiness) -> io::Result<()> {
    let app = Router::new().route("/healthz/ready", get(ready)).with_state(readiness);
    axum::serve(listener, app).await
}

/// Serves `/metrics` and `/stats/prometheus` until the process ends.
pub(crate) async fn serve_metrics(listener: TcpListener, registry: Arc<Registry>) -> io::Result<()> {
    let app = Router::new()
        .route("/metrics", get(metrics))
        .route("/stats/prometheus", get(metrics))
        .with_state(registry);
    axum::serve(listener, app).await
}

async fn ready(State(readiness): State<Readiness>) -> impl IntoResponse {
    let pending = readiness.pending();
    if pending.is_empty() {
        (StatusCode::OK, "ready\n".to_owned())
    } else {
        (StatusCode::INTERNAL_SERVER_ERROR, format!("not ready, pending: {}\n", pending.join(", ")))
    }
}

async fn metrics(State(registry): State<Arc<Registry>>, headers: HeaderMap) -> impl IntoResponse {
    let mut body = String::new();
    if let Err(error) = prometheus_client::encoding::text::encode(&mut body, &registry) {
        return (StatusCode::INTERNAL_SERVER_ERROR, [(header::CONTENT_TYPE, TEXT)], error.to_string());
    }
    let accepts = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    let kind = if accepts.contains("application/openmetrics-text") { OPEN_METRICS } else { TEXT };
    (StatusCode::OK, [(header::CONTENT_TYPE, kind)], body)
}
