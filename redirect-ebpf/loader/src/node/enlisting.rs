//! Whether the connect programs know this process as the agent.
//!
//! While they do not, each of its sockets is exempted by itself, which costs a bpf(2) call. They are told by a socket that is
//! marked with that call and then connected in a captured pod: the kernel, and not we, knows the number of this process in
//! the first pid namespace. Nothing is sent: the connection is to an address that TCP refuses.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::NodeCapture;
use crate::error::CaptureError;
use crate::report::{Line, Part, Problem};

/// The process number under which we are known; 0 if we are not. Shared with the makers of sockets.
#[derive(Clone, Debug, Default)]
pub(crate) struct Enlisted(Arc<AtomicU32>);

impl Enlisted {
    pub(crate) fn is_known(&self) -> bool {
        self.number() != 0
    }

    fn number(&self) -> u32 {
        self.0.load(Ordering::Acquire)
    }

    fn set(&self, number: u32) {
        self.0.store(number, Ordering::Release);
    }
}

impl NodeCapture {
    /// A handle that tells whether this process is known.
    pub(crate) fn enlisted(&self) -> Enlisted {
        self.enlisted.clone()
    }

    /// Makes this process known as the agent, in the place of another one; `connect` connects a socket that says so in a pod.
    ///
    /// Where that does not take, each socket goes on being exempted by itself.
    pub(crate) fn enlist(&self, connect: impl FnOnce() -> std::io::Result<()>) -> Result<(), CaptureError> {
        let _turn = self.enlisting.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if self.enlisted.is_known() {
            return Ok(());
        }
        self.maps.set_agent(0)?;
        connect().map_err(CaptureError::socket("tell the connect programs of this process"))?;
        let number = self.maps.agent()?;
        if number == 0 {
            tracing::warn!(
                "the connect programs do not know this process; each of its sockets is exempted by itself"
            );
        }
        self.enlisted.set(number);
        Ok(())
    }

    /// From now on each socket is exempted by itself: another process may be known as the agent in a moment.
    pub fn step_back(&self) {
        self.enlisted.set(0);
    }

    /// No process is known as the agent any more: the one that was to be it is gone.
    pub fn dismiss(&self) -> Result<(), CaptureError> {
        self.step_back();
        self.maps.set_agent(0)
    }

    /// Whether the programs still know this process, if they did.
    pub(crate) fn inspect_enlisted(&self) -> Option<Line> {
        let ours = self.enlisted.number();
        let found = match (ours, self.maps.agent()) {
            (0, _) => return None,
            (_, Err(error)) => {
                Err(Problem::new(format!("cannot be looked at: {error}"), "see the agent's log"))
            }
            (_, Ok(known)) if known == ours => Ok(()),
            (_, Ok(known)) => Err(Problem::new(
                format!(
                    "process {known} is known as the agent, and not {ours}: the agent's own connections are captured"
                ),
                "the agent exempts each of its sockets by itself; look for who writes the map AGENT",
            )),
        };
        Some(Line::new(Part::NodeMap, "the agent's process", found))
    }

    /// Does without being known where that was lost.
    pub(crate) fn repair_enlisted(&self) {
        if self.inspect_enlisted().is_some_and(|line| line.problem.is_some()) {
            self.step_back();
        }
    }
}
