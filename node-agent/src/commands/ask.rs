//! One question to an agent, this node's or another's, and its answers.
//!
//! Every wait is bounded. An answer that breaks off is an error, and never taken for a whole one.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::bail;
use linux::fdpass::Connection;
use thiserror::Error;

use super::far::Far;
use crate::admin_socket::SOCKET;
use crate::admin_socket::protocol::{Answer, MAX_MESSAGE, Request};
use crate::cli::Target;

/// How long the agent may take for one part of its answer: longer than a connection that does not arrive, in each family.
const TIMEOUT: Duration = Duration::from_secs(15);

/// Nobody answers.
#[derive(Debug, Error)]
pub(super) enum NoAgent {
    /// On this node.
    #[error(
        "no agent answers at {path} ({cause}); is it running, and is this its --run-dir? Run this as root"
    )]
    Near {
        /// Its socket.
        path: PathBuf,
        /// Why.
        cause: io::Error,
    },
    /// On another.
    #[error("no agent answers on node {node}: {why}")]
    Far {
        /// Which.
        node: String,
        /// Why.
        why: String,
    },
}

/// An agent that can be asked, again and again.
pub(super) enum Agent {
    /// This node's, by its socket.
    Near(PathBuf),
    /// Another node's, through the API server.
    Far(Box<Far>),
}

impl Agent {
    /// The one that is meant. That of another node is looked for.
    ///
    /// # Errors
    /// [`NoAgent`] if another node has none; what the API server has against the question.
    pub(super) fn of(target: &Target) -> anyhow::Result<Self> {
        Ok(match &target.far.node {
            Some(node) => Self::Far(Box::new(Far::find(&target.far, node)?)),
            None => Self::Near(target.run_dir.join(SOCKET)),
        })
    }

    /// Whether what is on this node is what is to be looked at.
    pub(super) fn is_near(&self) -> bool {
        matches!(self, Self::Near(_))
    }

    /// The agent's answers up to the last.
    ///
    /// # Errors
    /// [`NoAgent`] if none is there or it falls silent; what the agent has against the question, in its words.
    pub(super) fn ask(&self, request: &Request) -> anyhow::Result<Vec<Answer>> {
        let mut answers = Vec::new();
        match self {
            Self::Near(path) => near(path, request, &mut answers)?,
            Self::Far(far) => far.ask(request, &mut |answer| answers.push(answer))?,
        }
        for answer in &answers {
            match answer {
                Answer::Failed { message } => bail!("the agent did not understand: {message}"),
                Answer::Refused { why } => bail!("{why}"),
                _ => {}
            }
        }
        Ok(answers)
    }
}

/// One question to the agent that is meant.
pub(super) fn ask(target: &Target, request: &Request) -> anyhow::Result<Vec<Answer>> {
    Agent::of(target)?.ask(request)
}

fn near(path: &std::path::Path, request: &Request, answers: &mut Vec<Answer>) -> anyhow::Result<()> {
    let silent = |cause| NoAgent::Near { path: path.to_owned(), cause };
    let connection = Connection::connect(path, TIMEOUT).map_err(silent)?;
    connection.send(&request.encode()?, &[]).map_err(silent)?;
    loop {
        let (message, _) = connection.recv(MAX_MESSAGE).map_err(silent)?;
        if message.is_empty() {
            bail!(
                "the agent ended its answer in the middle; only root is answered, and its log may tell more"
            );
        }
        match Answer::decode(&message)? {
            Answer::End => return Ok(()),
            // Nothing follows on it.
            answer @ (Answer::Failed { .. } | Answer::Refused { .. }) => {
                answers.push(answer);
                return Ok(());
            }
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
