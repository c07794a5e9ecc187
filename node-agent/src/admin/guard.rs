//! Who may ask: programs of this host, not web pages that a browser of this host happens to show.
//!
//! A page can have a browser send requests to loopback, by a name of its own that resolves to it, or straight. So the
//! host that is asked for must be `localhost` or an address, and a request that names where it comes from must come from
//! the same place. Nothing here takes a body worth mentioning.

use std::net::IpAddr;

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};

/// Bytes that a request may bring along; they are not read.
const MAX_BODY: u64 = 4096;

/// Passes a request on, or refuses it.
pub(super) async fn check(request: Request, next: Next) -> Response {
    match refusal(request.headers()) {
        None => next.run(request).await,
        Some((status, why)) => (status, [(header::CONTENT_TYPE, super::TEXT)], why).into_response(),
    }
}

fn refusal(headers: &HeaderMap) -> Option<(StatusCode, &'static str)> {
    let text = |name: &HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let host = text(&header::HOST);
    if host.is_some_and(|host| !is_local(host)) {
        return Some((StatusCode::FORBIDDEN, "ask for localhost or an IP address, not for another name\n"));
    }
    let same_origin = |origin: &str| host.is_some_and(|host| origin.strip_prefix("http://") == Some(host));
    if text(&header::ORIGIN).is_some_and(|origin| !same_origin(origin)) {
        return Some((StatusCode::FORBIDDEN, "this interface is not for web pages\n"));
    }
    let length = text(&header::CONTENT_LENGTH).map(str::parse::<u64>);
    if length.is_some_and(|length| !matches!(length, Ok(0..=MAX_BODY))) {
        return Some((StatusCode::PAYLOAD_TOO_LARGE, "requests need no body here\n"));
    }
    None
}

/// Whether a host, with or without a port, is `localhost` or an address.
fn is_local(host: &str) -> bool {
    let name = match host.strip_prefix('[') {
        Some(rest) => rest.split_once(']').map_or(host, |(address, _)| address),
        None => host.rsplit_once(':').map_or(host, |(name, _)| name),
    };
    name.eq_ignore_ascii_case("localhost") || name.parse::<IpAddr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(headers: &[(HeaderName, &str)]) -> Option<u16> {
        let headers: HeaderMap =
            headers.iter().map(|(name, value)| (name.clone(), value.parse().unwrap())).collect();
        refusal(&headers).map(|(status, _)| status.as_u16())
    }

    #[test]
    fn other_names_other_origins_and_long_bodies_are_refused() {
        use header::{CONTENT_LENGTH, HOST, ORIGIN};
        for host in ["localhost", "LOCALHOST:15000", "127.0.0.1", "10.0.0.1:80", "[::1]", "[::1]:15000"] {
            assert_eq!(status(&[(HOST, host)]), None, "{host}");
        }
        for host in ["evil.example", "evil.example:15000", "localhost.evil.example", "[::1", "", ":"] {
            assert_eq!(status(&[(HOST, host)]), Some(403), "{host}");
        }
        assert_eq!(status(&[]), None);
        assert_eq!(status(&[(HOST, "localhost:1"), (ORIGIN, "http://localhost:1")]), None);
        for origin in ["http://evil.example", "http://6.6.6.6", "null", "https://localhost:1"] {
            assert_eq!(status(&[(HOST, "localhost:1"), (ORIGIN, origin)]), Some(403), "{origin}");
        }
        assert_eq!(status(&[(CONTENT_LENGTH, "4096")]), None);
        assert_eq!(status(&[(CONTENT_LENGTH, "4097")]), Some(413));
    }
}
