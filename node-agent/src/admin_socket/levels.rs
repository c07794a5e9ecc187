//! What is logged, shown and changed.

use std::io;

use protocols::levels::LevelChange;

use super::protocol::Answer;
use super::{Subjects, Teller};

/// Changes, and tells what is in force.
pub(super) fn tell(subjects: &Subjects, change: &LevelChange, send: &mut Teller<'_>) -> io::Result<()> {
    send(match subjects.levels.change(change.reset, &change.level) {
        Ok(levels) => Answer::Levels { levels },
        Err(error) => Answer::Refused { why: error.to_string() },
    })
}
