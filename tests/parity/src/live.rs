//! A connection that is open while something changes: it goes on talking until it is cut, or has long enough not been.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context as _, Result, anyhow};
use serde_json::{Value, json};

use crate::client::{LINE, ended};
use crate::outcome::{Fields, flat};
use crate::place::Place;

/// Longest wait for an answer.
const LIMIT: Duration = Duration::from_secs(10);
/// Between two lines, as in the recording.
const PAUSE: Duration = Duration::from_millis(50);
/// How often it must still be answered after everybody knows of the change, to count as left alone.
const ENOUGH: usize = 60;

/// Opens a connection, lets `change` happen while it is used, and tells the first answer and what became of the connection.
pub fn through(from: &Place, to: SocketAddr, change: impl FnOnce() -> Result<()>) -> Result<Vec<Fields>> {
    let mut live =
        Live(BufReader::new(from.connect(to, LIMIT)?.with_context(|| format!("connect to {to}"))?));
    let first: Value =
        serde_json::from_str(&live.exchange()?.map_err(|end| anyhow!("no first answer: {end}"))?)?;
    let known = AtomicBool::new(false);
    let outcome = std::thread::scope(|scope| {
        let talking = scope.spawn(|| live.talk(&known));
        let changed = change();
        known.store(true, Ordering::Release);
        let outcome = talking.join().map_err(|_| anyhow!("the client panicked"))?;
        changed?;
        outcome
    })?;
    Ok(vec![flat(&first), flat(&json!({ "live": outcome }))])
}

struct Live(BufReader<TcpStream>);

impl Live {
    /// Says a line; the answer, or how the connection ended instead.
    fn exchange(&mut self) -> Result<Result<String, String>> {
        let end = |error: &std::io::Error| {
            let end = ended(error);
            Ok(Err(end.get("outcome").and_then(Value::as_str).unwrap_or_default().to_owned()))
        };
        if let Err(error) = self.0.get_mut().write_all(LINE) {
            return end(&error);
        }
        let mut answer = String::new();
        match self.0.read_line(&mut answer) {
            Ok(0) => Ok(Err("closed".to_owned())),
            Ok(_) => Ok(Ok(answer)),
            Err(error) => end(&error),
        }
    }

    fn talk(&mut self, known: &AtomicBool) -> Result<String> {
        let mut answered = 0;
        while answered < ENOUGH {
            if let Err(end) = self.exchange()? {
                return Ok(end);
            }
            answered += usize::from(known.load(Ordering::Acquire));
            // The pace of the recorded client; nothing is waited for.
            std::thread::sleep(PAUSE);
        }
        Ok("still open".to_owned())
    }
}
