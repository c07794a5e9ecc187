//! `/logging`: what is logged, shown and changed while the agent runs.

use axum::extract::{RawQuery, State};
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse as _, Response};
use protocols::levels::LevelChange;

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
    let LevelChange { reset, level } = LevelChange::of_query(&query.unwrap_or_default());
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
