//! One agent takes the place of another of the same installation: listeners, pins and enrolments pass from process to process.
//!
//! The new agent asks on a Unix socket of the run directory. The old one stops changing anything (no enrolment, no repair, no
//! request of the plugin), gives descriptors of all its listening sockets and of its lock, and goes on serving. The new
//! agent puts the same sockets behind programs of its own, proves each pod, and says so; only then does the old one stop
//! accepting, and drain. So at every moment somebody accepts, and no attempt to connect is refused or lost.
//!
//! Invariant: exactly one of the two may change what is captured. Until the old agent has said [`protocol::Answer::Yours`] it
//! is the old one; if the new one fails or dies before, the old one goes on as if nothing had been asked, and its watch mends
//! what the other left half done.

mod claim;
mod estate;
mod protocol;

pub(crate) use claim::Claim;
pub(crate) use estate::{Estate, Holdings};
pub(crate) use protocol::{ADMIN, ADMIN_PORTS, CNI, HANDOVER, METRICS, Named, READINESS};
