//! What has happened lately on this node, in the agent's own words: the last of what the log says, kept for who asks.
//!
//! Kept is what is logged at `info` or above, connections that were carried well apart; so the levels of the log decide what there is. Invariants:
//! the number of events and the length of each are bounded; connections that fail, of which there may be many, displace no other events; each
//! event has a number of its own, so that who asks again sees what has been missed. What is kept is gone with the process.

mod layer;
mod ring;

pub(crate) use self::layer::Recorder;
pub(crate) use self::ring::{Event, Events};
