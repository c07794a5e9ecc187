//! The two pipes to a browser: commands out, answers and events in.
//!
//! Every wait has a limit. An event that nobody waits for is kept until it is asked for.

use std::io::{BufRead as _, BufReader, Write as _};
use std::process::{ChildStdin, ChildStdout};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Instant;

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};

use crate::LIMIT;

/// Messages that may wait; a browser that says more waits itself.
const AHEAD: usize = 1024;

/// The pipes.
#[derive(Debug)]
pub(crate) struct Pipe {
    to: ChildStdin,
    from: Receiver<Value>,
    last: u64,
    session: Option<String>,
    events: Vec<Value>,
}

impl Pipe {
    pub(crate) fn new(to: ChildStdin, from: ChildStdout) -> Result<Self> {
        let (sender, receiver) = sync_channel(AHEAD);
        let read = move || {
            let mut from = BufReader::new(from);
            let mut message = Vec::new();
            while from.read_until(0, &mut message).is_ok_and(|length| length > 0) {
                if message.last() == Some(&0) {
                    message.pop();
                }
                let Ok(value) = serde_json::from_slice(&message) else { return };
                if sender.send(value).is_err() {
                    return;
                }
                message.clear();
            }
        };
        std::thread::Builder::new().name("browser".to_owned()).spawn(read)?;
        Ok(Self { to, from: receiver, last: 0, session: None, events: Vec::new() })
    }

    /// From now on commands are those of a session.
    pub(crate) fn talk_to(&mut self, session: String) {
        self.session = Some(session);
    }

    /// Sends a command; returns its number.
    pub(crate) fn send(&mut self, method: &str, parameters: &Value) -> Result<u64> {
        self.last += 1;
        let mut message = json!({ "id": self.last, "method": method, "params": parameters });
        if let (Some(session), Some(fields)) = (&self.session, message.as_object_mut()) {
            fields.insert("sessionId".to_owned(), json!(session));
        }
        let mut bytes = serde_json::to_vec(&message)?;
        bytes.push(0);
        self.to.write_all(&bytes).with_context(|| format!("{method}: the browser is gone"))?;
        Ok(self.last)
    }

    /// Sends a command and waits for its result.
    pub(crate) fn call(&mut self, method: &str, parameters: &Value) -> Result<Value> {
        let number = self.send(method, parameters)?;
        let end = Instant::now() + LIMIT;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let message =
                self.from.recv_timeout(left).with_context(|| format!("{method}: no answer in {LIMIT:?}"))?;
            if message.get("id").and_then(Value::as_u64) != Some(number) {
                self.events.push(message);
                continue;
            }
            if let Some(error) = message.get("error") {
                bail!("{method}: {error}");
            }
            return Ok(message.get("result").cloned().unwrap_or_default());
        }
    }

    /// All events of a name so far.
    pub(crate) fn events(&mut self, method: &str) -> Vec<&Value> {
        self.events.extend(self.from.try_iter());
        let is_it = |event: &&Value| event.get("method").and_then(Value::as_str) == Some(method);
        self.events.iter().filter(is_it).filter_map(|event| event.get("params")).collect()
    }

    /// Forgets the events so far.
    pub(crate) fn forget(&mut self) {
        self.events.extend(self.from.try_iter());
        self.events.clear();
    }
}
