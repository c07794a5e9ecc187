//! The page that lists what can be asked.

use std::fmt::Write as _;

use axum::http::header;
use axum::response::IntoResponse;

/// Path, method, and what it is for.
pub(super) const ENDPOINTS: [(&str, &str, &str); 7] = [
    ("/ask", "POST", "what the command line asks from other nodes: a question and its answers as JSON"),
    ("/ui", "GET", "a live page: pods, who talks to whom, what is refused, certificates, the control plane"),
    ("/config_dump", "GET", "workloads, services, policies, certificates, pods and configuration, as JSON"),
    (
        "/logging",
        "POST",
        "shows what is logged; level=LEVEL or level=SCOPE=LEVEL,... changes it, reset takes the changes back",
    ),
    (
        "/quitquitquit",
        "POST",
        "ends the agent as SIGTERM does; captured pods are refused until the next one starts",
    ),
    ("/debug/pprof/profile", "GET", "where processor time goes, for seconds=10; gzipped protobuf of pprof"),
    (
        "/debug/pprof/heap",
        "GET",
        "what was allocated in seconds=10 and is still there; gzipped protobuf of pprof",
    ),
];

/// Answers with the page.
pub(super) async fn page() -> impl IntoResponse {
    let mut page = String::from(
        "<!DOCTYPE html>\n<html lang=\"en\"><head><meta charset=\"utf-8\"><title>culvert</title></head><body>\n\
         <h1>culvert</h1>\n<table>\n",
    );
    for (path, method, what) in ENDPOINTS {
        let shown = match method {
            "GET" => format!("<a href=\"{path}\">{path}</a>"),
            _ => path.to_owned(),
        };
        // Writing to a String does not fail.
        let _ = writeln!(page, "<tr><td>{method}</td><td>{shown}</td><td>{what}</td></tr>");
    }
    page.push_str("</table>\n</body></html>\n");
    ([(header::CONTENT_TYPE, "text/html; charset=utf-8")], page)
}
