//! The longest time that a walk-through may take. Each of its waits has a limit of its own; this one is for what nobody has thought of.

use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::time::Duration;

use harness::Scenario;
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

/// Many times what the longest takes on two slow cores.
const LONGEST: Duration = Duration::from_secs(240);

/// Runs until it is dropped.
#[derive(Debug)]
pub(crate) struct Limit {
    /// Its end tells the watch that all is well.
    _end: Sender<()>,
}

impl Limit {
    /// From now on. When the time is over the program is ended as by SIGTERM: what stands is taken down, and the status is not 0.
    pub(crate) fn of(scenario: Scenario) -> Self {
        let (end, watched) = channel::<()>();
        // It is alone: nobody waits for it, and it ends with what it watches.
        std::thread::spawn(move || {
            if watched.recv_timeout(LONGEST) == Err(RecvTimeoutError::Timeout) {
                println!(
                    "\n{} has not come to its end within {LONGEST:?}: it is taken down",
                    scenario.name()
                );
                // To one's own process it cannot fail.
                let _ = kill(Pid::this(), Signal::SIGTERM);
            }
        });
        Self { _end: end }
    }
}
