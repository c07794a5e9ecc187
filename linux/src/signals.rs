//! The mask of signals that a process inherits from whoever started it.

use std::io;

use nix::sys::signal::{SigSet, Signal};

/// Lets the signals through by which a process is told to end, whatever mask it was started with. To be called before there
/// are other threads: each inherits the mask of the one that makes it (signal(7)).
pub fn accept_termination() -> io::Result<()> {
    let mut told = SigSet::empty();
    told.add(Signal::SIGTERM);
    told.add(Signal::SIGINT);
    Ok(told.thread_unblock()?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_blocked_comes_through() {
        let mut blocked = SigSet::empty();
        blocked.add(Signal::SIGTERM);
        blocked.add(Signal::SIGUSR2);
        blocked.thread_block().unwrap();
        accept_termination().unwrap();
        let now = SigSet::thread_get_mask().unwrap();
        assert!(!now.contains(Signal::SIGTERM) && now.contains(Signal::SIGUSR2));
    }
}
