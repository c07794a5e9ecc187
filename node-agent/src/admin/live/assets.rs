//! What the page is made of, and what its browser is told about it.
//!
//! Invariant: a part has no code and no style within the page itself, and asks nobody but this agent for anything; browsers hold it to that.

use axum::http::{HeaderName, HeaderValue, header};
use axum::response::{IntoResponse as _, Response};

/// Nothing but what comes from here; no markup may be made of text; nobody may put the page into another.
const POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; connect-src 'self'; \
    base-uri 'none'; form-action 'none'; frame-ancestors 'none'; require-trusted-types-for 'script'; trusted-types 'none'";

/// A part.
pub(in crate::admin) struct Part {
    pub(in crate::admin) path: &'static str,
    kind: &'static str,
    pub(in crate::admin) text: &'static str,
}

/// All parts; the first is the page.
pub(in crate::admin) const PARTS: &[Part] = &[
    Part { path: "/ui", kind: "text/html; charset=utf-8", text: include_str!("assets/page.html") },
    Part { path: "/ui/page.css", kind: "text/css; charset=utf-8", text: include_str!("assets/page.css") },
    Part {
        path: "/ui/page.js",
        kind: "text/javascript; charset=utf-8",
        text: include_str!("assets/page.js"),
    },
    Part {
        path: "/ui/graph.js",
        kind: "text/javascript; charset=utf-8",
        text: include_str!("assets/graph.js"),
    },
    Part { path: "/ui/icon.svg", kind: "image/svg+xml", text: include_str!("assets/icon.svg") },
];

/// Answers with a part.
pub(super) fn answer(part: &Part) -> Response {
    let mut response = part.text.into_response();
    guarded(&mut response, part.kind);
    response
}

/// Says what an answer is, and what its browser may do with it.
pub(super) fn guarded(response: &mut Response, kind: &'static str) {
    const HEADERS: [(HeaderName, &str); 5] = [
        (header::CONTENT_SECURITY_POLICY, POLICY),
        (header::X_CONTENT_TYPE_OPTIONS, "nosniff"),
        (header::REFERRER_POLICY, "no-referrer"),
        // Another agent may be another release.
        (header::CACHE_CONTROL, "no-store"),
        (HeaderName::from_static("cross-origin-resource-policy"), "same-origin"),
    ];
    let headers = response.headers_mut();
    for (name, value) in HEADERS.into_iter().chain([(header::CONTENT_TYPE, kind)]) {
        headers.insert(name, HeaderValue::from_static(value));
    }
}
