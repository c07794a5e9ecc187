//! The access logs of both agents: the lines that came after a certain place, in the form of the recording.

use anyhow::{Context as _, Result};
use harness::Agent;
use serde_json::Value;

use crate::outcome::{Fields, text};

/// Fields that differ from run to run, or that every line has alike.
const LEFT_OUT: [&str; 3] = ["time", "scope", "duration"];
const ACCESS: &str = "access";

/// How long an agent's log is.
pub fn length(agent: &Agent) -> usize {
    agent.log().len()
}

/// The lines that an agent has written since its log was so long, each whole, with the client's port still there.
pub fn since(node: &str, agent: &Agent, length: usize) -> Result<Vec<Fields>> {
    let log = agent.log();
    let new = log.get(length..).context("a log that has become shorter")?;
    let whole = new.rfind('\n').and_then(|end| new.get(..end)).unwrap_or_default();
    let lines = whole.lines().filter_map(|line| line_of(node, line));
    Ok(lines.collect())
}

/// The address that a line says the connection came from.
pub fn source(line: &Fields) -> &str {
    let (ip, _) = text(line, "src.addr").rsplit_once(':').unwrap_or_default();
    ip.trim_start_matches('[').trim_end_matches(']')
}

/// One line, if it is the access log's.
fn line_of(node: &str, line: &str) -> Option<Fields> {
    let Ok(Value::Object(mut fields)) = serde_json::from_str(line) else { return None };
    if text(&fields, "scope") != ACCESS {
        return None;
    }
    fields.retain(|key, _| !LEFT_OUT.contains(&key.as_str()));
    fields.insert("node".to_owned(), node.into());
    Some(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_lines_of_the_access_log_are_read_without_what_differs_from_run_to_run() {
        let line = line_of(
            "a",
            r#"{"level":"info","time":"now","scope":"access","message":"connection complete","src.addr":"[fd00:1::30]:1","bytes_sent":3,"duration":"1ms"}"#,
        )
        .unwrap();
        assert_eq!(source(&line), "fd00:1::30");
        assert_eq!(
            Value::Object(line),
            serde_json::json!({ "node": "a", "level": "info", "message": "connection complete",
                "src.addr": "[fd00:1::30]:1", "bytes_sent": 3 })
        );
        assert!(
            line_of("a", r#"{"level":"info","scope":"agent","message":"connection complete"}"#).is_none()
        );
        assert!(line_of("a", "no json").is_none());
    }
}
