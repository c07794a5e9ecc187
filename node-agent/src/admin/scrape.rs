//! Metrics in the form that is asked for: OpenMetrics or plain text, compressed or not.
//!
//! All labels together may be some megabytes, so they are written on a thread that may block.

use std::io::Write as _;
use std::sync::Arc;

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use axum::routing::get;
use flate2::Compression;
use flate2::write::GzEncoder;
use prometheus_client::registry::Registry;

use super::TEXT;

const OPEN_METRICS: &str = "application/openmetrics-text;charset=utf-8;version=1.0.0";

/// `/metrics` and `/stats/prometheus` of a registry.
pub(super) fn router(registry: Arc<Registry>) -> Router {
    Router::new()
        .route("/metrics", get(metrics))
        .route("/stats/prometheus", get(metrics))
        .with_state(registry)
}

async fn metrics(State(registry): State<Arc<Registry>>, headers: HeaderMap) -> Response {
    let kind =
        if lists(&headers, header::ACCEPT, "application/openmetrics-text") { OPEN_METRICS } else { TEXT };
    let compressed = lists(&headers, header::ACCEPT_ENCODING, "gzip");
    let body = match tokio::task::spawn_blocking(move || write(&registry, compressed)).await {
        Ok(Ok(body)) => body,
        Ok(Err(error)) => return failed(&error),
        Err(error) => return failed(&error),
    };
    let mut response = (StatusCode::OK, [(header::CONTENT_TYPE, kind)], body).into_response();
    let headers = response.headers_mut();
    headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
    if compressed {
        headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    }
    response
}

fn write(registry: &Registry, compressed: bool) -> anyhow::Result<Vec<u8>> {
    let mut text = String::new();
    prometheus_client::encoding::text::encode(&mut text, registry)?;
    if !compressed {
        return Ok(text.into_bytes());
    }
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(text.as_bytes())?;
    Ok(encoder.finish()?)
}

fn failed(error: &impl std::fmt::Display) -> Response {
    let why = format!("the metrics could not be written: {error}\n");
    (StatusCode::INTERNAL_SERVER_ERROR, [(header::CONTENT_TYPE, TEXT)], why).into_response()
}

/// Whether a header that lists what a caller takes has this, and not with a weight of nothing.
fn lists(headers: &HeaderMap, name: HeaderName, wanted: &str) -> bool {
    let lines = headers.get_all(name).into_iter().filter_map(|line| line.to_str().ok());
    lines.flat_map(|line| line.split(',')).any(|one| {
        let mut parts = one.split(';').map(str::trim);
        let is_it = parts.next().is_some_and(|name| name.eq_ignore_ascii_case(wanted));
        let weight = parts.find_map(|part| part.strip_prefix("q=")?.parse::<f32>().ok());
        is_it && weight.is_none_or(|weight| weight > 0.0)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_listed_with_a_weight_is_taken() {
        for (line, taken) in [
            ("gzip", true),
            ("br, GZIP;q=0.5", true),
            ("deflate,gzip;q=1.0,*;q=0.5", true),
            ("gzip;q=0", false),
            ("br;q=1, gzip;q=0.0", false),
            ("x-gzip", false),
            ("", false),
        ] {
            let headers = HeaderMap::from_iter([(header::ACCEPT_ENCODING, line.parse().unwrap())]);
            assert_eq!(lists(&headers, header::ACCEPT_ENCODING, "gzip"), taken, "{line}");
        }
    }
}
