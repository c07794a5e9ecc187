//! Which threads go first where there is one CPU for all.
//!
//! Both calls concern the calling thread alone, and the threads that it starts afterwards inherit what they set. Neither needs a
//! privilege, and an agent on whose kernel one fails is slower in the worst case, nothing else.

use std::io;
use std::time::Duration;

use libc::{SCHED_OTHER, SYS_sched_getattr, SYS_sched_setattr, sched_attr};

/// Names the calling thread.
const SELF: i32 = 0;

/// Has the scheduler give this thread the CPU soon after it wakes, for turns of about this length (100 µs to 100 ms), even if
/// another thread has not used its own turn up. Its share of the CPU stays what it was. Kernels before 6.12 take no notice
/// (`sched_runtime` of a normal thread: kernel commits 857b158dc5e8 and 85e511df3cec).
pub fn take_short_turns(turn: Duration) -> io::Result<()> {
    change(|attr| attr.sched_runtime = u64::try_from(turn.as_nanos()).unwrap_or(u64::MAX))
}

/// Has the scheduler prefer threads of less niceness (-20 to 19, usually 0) to this one. Lowering it again needs a privilege.
pub fn be_nice(niceness: i32) -> io::Result<()> {
    change(|attr| attr.sched_nice = niceness)
}

/// Changes one thing of the calling thread; all others stay.
fn change(what: impl FnOnce(&mut sched_attr)) -> io::Result<()> {
    let mut attr = current()?;
    if attr.sched_policy != SCHED_OTHER as u32 {
        return Err(io::Error::new(
            io::ErrorKind::Unsupported,
            "the thread is scheduled by a policy that was given to it",
        ));
    }
    what(&mut attr);
    // SAFETY: the kernel reads `attr.size` bytes of it, which is its size; it keeps no reference.
    let set = unsafe { libc::syscall(SYS_sched_setattr, SELF, &raw const attr, 0) };
    if set == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

fn current() -> io::Result<sched_attr> {
    let size = u32::try_from(size_of::<sched_attr>()).unwrap_or_default();
    let mut attr = sched_attr {
        size,
        sched_policy: 0,
        sched_flags: 0,
        sched_nice: 0,
        sched_priority: 0,
        sched_runtime: 0,
        sched_deadline: 0,
        sched_period: 0,
    };
    // SAFETY: the kernel writes at most `size` bytes there, which is how many there are.
    let got = unsafe { libc::syscall(SYS_sched_getattr, SELF, &raw mut attr, size, 0) };
    if got == 0 { Ok(attr) } else { Err(io::Error::last_os_error()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_call_changes_what_it_names_of_this_thread_alone() {
        let before = current().unwrap();
        let inside = std::thread::spawn(|| {
            be_nice(5).unwrap();
            take_short_turns(Duration::from_micros(500)).unwrap();
            current().unwrap()
        });
        let inside = inside.join().unwrap();
        assert_eq!((inside.sched_nice, inside.sched_policy), (5, SCHED_OTHER as u32));
        // A kernel that knows turns tells them; another one tells none.
        assert!([0, 500_000].contains(&inside.sched_runtime), "{}", inside.sched_runtime);
        let after = current().unwrap();
        assert_eq!((after.sched_nice, after.sched_runtime), (before.sched_nice, before.sched_runtime));
    }

    #[test]
    fn less_than_a_tenth_of_a_millisecond_is_made_that() {
        let turn = std::thread::spawn(|| {
            take_short_turns(Duration::from_nanos(1)).unwrap();
            current().unwrap().sched_runtime
        });
        assert!([0, 100_000].contains(&turn.join().unwrap()));
    }
}
