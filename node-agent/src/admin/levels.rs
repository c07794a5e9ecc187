//! `/logging`: what is logged, shown and changed while the agent runs.

use axum::extract::{RawQuery, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};

use super::{Shared, TEXT};

const USAGE: &str = "\
POST /logging                              shows what is logged
POST /logging?level=LEVEL                  changes the level of everything that has none of its own
POST /logging?level=SCOPE=LEVEL,...        changes the level of scopes, as log lines name them (SCOPE:LEVEL does, too)
POST /logging?reset                        goes back to what the agent was started with; level= applies after that
LEVEL is one of error, warn, info, debug, trace, off
";

/// Changes levels, and answers with those that are in force.
pub(super) async fn change(State(shared): State<Shared>, RawQuery(query): RawQuery) -> Response {
    let query = query.unwrap_or_default();
    let mut level = String::new();
    let mut reset = false;
    for pair in query.split('&') {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        match key {
            "level" => level = unescaped(value),
            "reset" => reset = true,
            // What is not known is let be: callers of other releases may say more.
            _ => {}
        }
    }
    match shared.admin.levels.change(reset, &level) {
        Ok(now) => answer(StatusCode::OK, format!("current log level is {now}\n")),
        Err(error) => {
            answer(StatusCode::BAD_REQUEST, format!("Invalid level provided: {level}\n{error}\n{USAGE}"))
        }
    }
}

/// Answers every other method.
pub(super) async fn usage() -> Response {
    let mut response = answer(StatusCode::METHOD_NOT_ALLOWED, format!("Invalid HTTP method\n{USAGE}"));
    response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("POST"));
    response
}

fn answer(status: StatusCode, text: String) -> Response {
    (status, [(header::CONTENT_TYPE, TEXT)], text).into_response()
}

/// A value of a query with its `%xx` taken back; what is none stays as it is.
fn unescaped(value: &str) -> String {
    let mut bytes = Vec::with_capacity(value.len());
    let mut rest = value;
    while let Some((before, after)) = rest.split_once('%') {
        bytes.extend_from_slice(before.as_bytes());
        match after.get(..2).and_then(|digits| u8::from_str_radix(digits, 16).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = after.get(2..).unwrap_or_default();
            }
            None => {
                bytes.push(b'%');
                rest = after;
            }
        }
    }
    bytes.extend_from_slice(rest.as_bytes());
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn escapes_are_taken_back() {
        for (value, text) in
            [("tunnel%3Ahbone%3Ddebug", "tunnel:hbone=debug"), ("a%", "a%"), ("%zz%41", "%zzA"), ("", "")]
        {
            assert_eq!(unescaped(value), text);
        }
    }
}
