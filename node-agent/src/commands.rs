//! The commands that ask the node's agent over its Unix socket, and show what it says.
//!
//! Invariant: what is shown is what the agent said; a command decides nothing of its own, touches nothing on the node, and sends no packet.
//! When no agent answers, all of them end alike.

mod ask;
mod certificates;
mod connections;
mod events;
mod far;
mod levels;
mod output;
mod pods;
mod policy;
mod shells;
mod status;
mod support;
mod table;
mod times;
mod top;
mod trace;
mod verify;

use std::process::ExitCode;

pub(crate) use certificates::certificates;
pub(crate) use connections::connections;
pub(crate) use events::events;
pub(crate) use levels::logging;
pub(crate) use pods::pods;
pub(crate) use policy::check as check_policy;
pub(crate) use shells::{completions, man};
pub(crate) use status::status;
pub(crate) use support::support;
pub(crate) use top::top;
pub(crate) use trace::trace;
pub(crate) use verify::verify;

/// All is well.
const WELL: u8 = 0;
/// Something is wrong: with what was looked at, or with the command.
const WRONG: u8 = 1;
/// No agent answers.
const NO_AGENT: u8 = 2;
/// Policy or route says no, to `culvert policy check` and `culvert trace`.
const DENIED: u8 = 3;
/// The command line cannot be understood (`EX_USAGE` of sysexits.h).
pub(crate) const USAGE: u8 = 64;

/// What the command ends with that failed so.
pub(crate) fn code_of(error: &anyhow::Error) -> ExitCode {
    ExitCode::from(if error.is::<ask::NoAgent>() { NO_AGENT } else { WRONG })
}

/// Well, or something is wrong.
fn code(is_well: bool) -> ExitCode {
    ExitCode::from(if is_well { WELL } else { WRONG })
}
