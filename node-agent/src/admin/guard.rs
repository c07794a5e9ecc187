//! Who may ask: programs of this host, not web pages that a browser of this host happens to show.
//!
//! [`origin`] judges by what the headers say; whatever it refuses goes no further. Nor does what a browser says that a foreign page
//! makes it send, unless somebody follows a link to here.

use axum::extract::Request;
use axum::http::{HeaderMap, HeaderName, StatusCode, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use protocols::origin::{self, Refusal};

/// Bytes that a request may bring along. They are read of a question alone.
pub(super) const MAX_BODY: usize = origin::MAX_BODY;

/// What browsers say of a request: whose page makes it, and what it is to become (Fetch Metadata Request Headers, W3C). An image
/// or a script of a foreign page has no `Origin`.
const FETCH_SITE: HeaderName = HeaderName::from_static("sec-fetch-site");
const FETCH_DEST: HeaderName = HeaderName::from_static("sec-fetch-dest");

/// Passes a request on, or refuses it.
pub(super) async fn check(request: Request, next: Next) -> Response {
    match refusal(request.headers()) {
        None => next.run(request).await,
        Some((status, why)) => (status, [(header::CONTENT_TYPE, super::TEXT)], why).into_response(),
    }
}

fn refusal(headers: &HeaderMap) -> Option<(StatusCode, &'static str)> {
    let text = |name: &HeaderName| headers.get(name).map(|value| value.to_str().unwrap_or_default());
    let (host, origin) = (text(&header::HOST), text(&header::ORIGIN));
    let is_foreign = text(&FETCH_SITE).is_some_and(|site| !matches!(site, "same-origin" | "none"));
    let by_page = (is_foreign && text(&FETCH_DEST) != Some("document")).then_some(Refusal::Page);
    let refusal = origin::refusal(host, origin, text(&header::CONTENT_LENGTH)).or(by_page)?;
    let status = match refusal {
        Refusal::Name | Refusal::Page => StatusCode::FORBIDDEN,
        Refusal::Body => StatusCode::PAYLOAD_TOO_LARGE,
    };
    Some((status, refusal.why()))
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
        for (site, dest, refused) in [
            ("same-origin", "script", None),
            ("none", "document", None),
            ("cross-site", "document", None),
            ("cross-site", "image", Some(403)),
            ("same-site", "script", Some(403)),
            ("cross-site", "iframe", Some(403)),
            ("cross-site", "empty", Some(403)),
        ] {
            assert_eq!(status(&[(FETCH_SITE, site), (FETCH_DEST, dest)]), refused, "{site} {dest}");
        }
        assert_eq!(status(&[(FETCH_SITE, "cross-site")]), Some(403));
        assert_eq!(status(&[(CONTENT_LENGTH, "4096")]), None);
        assert_eq!(status(&[(CONTENT_LENGTH, "4097")]), Some(413));
    }
}
