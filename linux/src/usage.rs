//! What this process uses of the machine, and since when it runs, as the kernel tells of it.
//!
//! Looking needs no privilege and changes nothing. A kernel that tells something in another form is an error that names the file.

use std::io;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::resource::{UsageWho, getrusage};

/// Ticks a second of the times in `/proc/PID/stat`: 100 for programs on every architecture that this one is built for, whatever the
/// kernel counts in itself (`USER_HZ` of include/asm-generic/param.h).
const TICKS: u64 = 100;
/// Which words of `/proc/PID/stat` follow its name: the first of them is the third of the line, and the start is the 22nd.
const START: usize = 22 - 3;

/// The processor time of all its threads, in the kernel and outside of it, those that have ended included.
pub fn processor_time() -> io::Result<Duration> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    let of = |time: nix::sys::time::TimeVal| {
        let seconds = u64::try_from(time.tv_sec()).unwrap_or_default();
        Duration::from_secs(seconds)
            + Duration::from_micros(u64::try_from(time.tv_usec()).unwrap_or_default())
    };
    Ok(of(usage.user_time()) + of(usage.system_time()))
}

/// The bytes of memory that it has, as the kernel counts what is resident.
pub fn resident_memory() -> io::Result<u64> {
    let path = "/proc/self/status";
    let text = std::fs::read_to_string(path)?;
    let line = text.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    let kibibytes: Option<u64> = line.and_then(|line| line.split_whitespace().next()?.parse().ok());
    kibibytes.and_then(|count| count.checked_mul(1024)).ok_or_else(|| unreadable(path))
}

/// When it began, to a hundredth of a second.
pub fn started() -> io::Result<SystemTime> {
    let path = "/proc/self/stat";
    let ticks = start_in(&std::fs::read_to_string(path)?).ok_or_else(|| unreadable(path))?;
    let path = "/proc/stat";
    let text = std::fs::read_to_string(path)?;
    let booted = text.lines().find_map(|line| line.strip_prefix("btime "));
    let booted: u64 = booted.and_then(|word| word.trim().parse().ok()).ok_or_else(|| unreadable(path))?;
    let after = Duration::from_secs(ticks / TICKS) + Duration::from_millis(ticks % TICKS * (1000 / TICKS));
    Ok(UNIX_EPOCH + Duration::from_secs(booted) + after)
}

/// The ticks from the boot to the start of a process. Its name may have anything in it, so what follows the last bracket counts.
fn start_in(stat: &str) -> Option<u64> {
    stat.rsplit_once(')')?.1.split_whitespace().nth(START)?.parse().ok()
}

fn unreadable(path: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("{path} is not as this kernel should write it"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn time_and_memory_grow_with_what_is_done() {
        let (time, memory) = (processor_time().unwrap(), resident_memory().unwrap());
        let held = vec![1_u8; 64 << 20];
        let more = resident_memory().unwrap();
        assert!(more > memory + (32 << 20), "{memory} {more} {}", held.len());
        let mut sum = 0_u64;
        // Bounded by the processor time itself, not by a clock.
        while processor_time().unwrap() < time + Duration::from_millis(20) {
            sum = held.iter().fold(sum, |sum, byte| sum.wrapping_mul(31).wrapping_add((*byte).into()));
        }
        std::hint::black_box(sum);
    }

    #[test]
    fn a_process_has_started_before_now_and_after_the_machine() {
        let (now, started) = (SystemTime::now(), started().unwrap());
        // The machine's clock may have been set by a second or so since it was booted.
        assert!(started < now + Duration::from_secs(60), "{started:?} {now:?}");
        assert!(started > UNIX_EPOCH + Duration::from_secs(1_600_000_000), "{started:?}");
    }

    #[test]
    fn a_name_does_not_hide_the_start() {
        let rest = "S 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 4711 20 21";
        for name in ["(culvert)", "(a b) c)", "()"] {
            assert_eq!(start_in(&format!("42 {name} {rest}")), Some(4711), "{name}");
        }
        assert_eq!(start_in("42 (culvert) S 1"), None);
        assert_eq!(start_in(""), None);
    }
}
