//! What is logged, shown and changed.

use std::io;

use serde::{Deserialize, Serialize};

use super::protocol::Answer;
use super::{Subjects, Teller};

/// A change of what is logged; an empty one changes nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct LevelChange {
    /// Whether to go back to what the agent was started with, first.
    #[serde(default)]
    pub(crate) reset: bool,
    /// `LEVEL`, or `SCOPE=LEVEL`, or several with commas.
    #[serde(default)]
    pub(crate) level: String,
}

/// Changes, and tells what is in force.
pub(super) fn tell(subjects: &Subjects, change: &LevelChange, send: &mut Teller<'_>) -> io::Result<()> {
    send(match subjects.levels.change(change.reset, &change.level) {
        Ok(levels) => Answer::Levels { levels },
        Err(error) => Answer::Refused { why: error.to_string() },
    })
}
