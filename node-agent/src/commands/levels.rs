//! `culvert logging`: what the agent logs, shown and changed while it runs.

use std::process::ExitCode;

use anyhow::Context as _;
use serde::Serialize;

use super::output;
use super::{ask, code};
use crate::admin_socket::protocol::{Answer, Command, LevelChange, Request};
use crate::cli::LoggingArgs;

#[derive(Debug, Serialize)]
struct Levels {
    levels: String,
}

/// Prints what is in force, after it was changed.
pub(crate) fn logging(args: &LoggingArgs) -> anyhow::Result<ExitCode> {
    let change = LevelChange { reset: args.reset, level: args.level.clone().unwrap_or_default() };
    let answers = ask::ask(&args.asked.target, &Request::new(Command::Logging(change), None))?;
    let levels = answers.into_iter().find_map(|answer| match answer {
        Answer::Levels { levels } => Some(Levels { levels }),
        _ => None,
    });
    let levels = levels.context("the agent's answer has no levels in it")?;
    output::show(args.asked.output, &levels, |levels, _| format!("{}\n", levels.levels))?;
    Ok(code(true))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::admin_socket::tests::World;

    #[test]
    fn levels_are_shown_changed_and_taken_back() {
        let world = World::new();
        let change = |reset, level: &str| {
            let change = LevelChange { reset, level: level.into() };
            world.rows(Command::Logging(change), Some).remove(0)
        };
        let levels = |levels: &str| Answer::Levels { levels: levels.into() };
        assert_eq!(change(false, ""), levels("info"));
        assert_eq!(change(false, "access=debug,warn"), levels("access=debug,warn"));
        assert_eq!(change(false, ""), levels("access=debug,warn"));
        assert!(
            matches!(change(false, "loud"), Answer::Refused { why } if why.contains("`loud` is not a level"))
        );
        assert_eq!(change(true, ""), levels("info"));
    }
}
