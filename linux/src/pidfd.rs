//! A process by a descriptor (pidfd), by which whoever holds it learns when that process has ended.
//!
//! Unlike its number, the descriptor never means another process, and it means the same one in any pid namespace, so it can be
//! passed on. That it says so is the kernel's word: every thread of the process has ended, and holds no file or lock any more.

use std::fs;
use std::io;
use std::os::fd::{AsFd as _, AsRawFd as _, OwnedFd};
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

/// A process, living or ended.
#[derive(Debug)]
pub struct Process(OwnedFd);

impl Process {
    /// The one that has this number here. Linux 5.3.
    pub fn of(pid: u32) -> io::Result<Self> {
        let unknown =
            || io::Error::new(io::ErrorKind::InvalidInput, format!("{pid} is no number of a process"));
        let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).ok_or_else(unknown)?;
        Ok(Self(pidfd_open(pid, PidfdFlags::empty())?))
    }

    /// The one that a descriptor means, which another process has passed on.
    pub fn received(descriptor: OwnedFd) -> io::Result<Self> {
        let path = format!("/proc/self/fdinfo/{}", descriptor.as_raw_fd());
        // The kernel says this of no other kind of descriptor (proc_pid_fdinfo(5)).
        if !fs::read_to_string(path)?.lines().any(|line| line.starts_with("Pid:")) {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "the descriptor means no process"));
        }
        Ok(Self(descriptor))
    }

    /// Waits for its end, but no longer than `limit`; returns whether it has ended.
    pub fn has_ended_within(&self, limit: Duration) -> io::Result<bool> {
        let end = Instant::now() + limit;
        loop {
            let left = end.saturating_duration_since(Instant::now());
            let left = Timespec::try_from(left).map_err(io::Error::other)?;
            let mut polled = [PollFd::from_borrowed_fd(self.0.as_fd(), PollFlags::IN)];
            match poll(&mut polled, Some(&left)) {
                Err(Errno::INTR) => {}
                outcome => return Ok(outcome? > 0),
            }
        }
    }
}

impl From<Process> for OwnedFd {
    fn from(process: Process) -> Self {
        process.0
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    #[test]
    fn the_end_of_a_process_is_seen_by_whoever_was_given_it() {
        let mut child = Command::new("sleep").arg("600").spawn().unwrap();
        let process = Process::received(Process::of(child.id()).unwrap().into()).unwrap();
        assert!(!process.has_ended_within(Duration::ZERO).unwrap());
        child.kill().unwrap();
        assert!(process.has_ended_within(Duration::from_secs(60)).unwrap());
        child.wait().unwrap();
        assert!(
            process.has_ended_within(Duration::ZERO).unwrap(),
            "its number is free, and it has ended still"
        );
    }

    #[test]
    fn what_means_no_process_is_none() {
        assert!(Process::received(fs::File::open("/dev/null").unwrap().into()).is_err());
        assert!(Process::of(0).is_err() && Process::of(u32::MAX).is_err());
    }
}
