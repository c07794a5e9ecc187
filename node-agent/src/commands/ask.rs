//! One question to the agent, and its answers.
//!
//! Every wait is bounded. An answer that breaks off is an error, and never taken for a whole one.

use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::bail;
use linux::fdpass::Connection;
use thiserror::Error;

use crate::admin_socket::SOCKET;
use crate::admin_socket::protocol::{Answer, MAX_MESSAGE, Request};

/// How long the agent may take for one part of its answer: longer than a connection that does not arrive, in each family.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Nobody answers.
#[derive(Debug, Error)]
#[error("no agent answers at {path} ({cause}); is it running, and is this its --run-dir? Run this as root")]
pub(super) struct NoAgent {
    path: PathBuf,
    cause: io::Error,
}

/// The agent's answers up to the last.
///
/// # Errors
/// [`NoAgent`] if none is there or it falls silent; what the agent has against the question, in its words.
pub(super) fn ask(run_dir: &Path, request: &Request) -> anyhow::Result<Vec<Answer>> {
    let path = run_dir.join(SOCKET);
    let silent = |cause| NoAgent { path: path.clone(), cause };
    let connection = Connection::connect(&path, TIMEOUT).map_err(silent)?;
    connection.send(&request.encode()?, &[]).map_err(silent)?;
    let mut answers = Vec::new();
    loop {
        let (message, _) = connection.recv(MAX_MESSAGE).map_err(silent)?;
        if message.is_empty() {
            bail!(
                "the agent ended its answer in the middle; only root is answered, and its log may tell more"
            );
        }
        match Answer::decode(&message)? {
            Answer::End => return Ok(answers),
            Answer::Failed { message } => bail!("the agent did not understand: {message}"),
            Answer::Refused { why } => bail!("{why}"),
            answer => answers.push(answer),
        }
    }
}

/// Says on stderr that the agent had more to tell than it tells at once.
#[expect(clippy::print_stderr, reason = "this is a command, and its answer goes to stdout")]
pub(super) fn mention_left_out(answers: &[Answer], what: &str) {
    for answer in answers {
        if let Answer::LeftOut { count } = answer {
            eprintln!("culvert: {count} more {what} were left out: an answer is bounded");
        }
    }
}
