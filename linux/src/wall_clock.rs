//! The wall clock, as this process sees it: the machine's.
//!
//! Where what depends on it is tested with real processes, one of them must be able to have another time than its neighbours, and the kernel
//! has no such thing: a time namespace sets the monotonic clocks apart and not this one (time_namespaces(7)). So a build with
//! assertions, which is never shipped, can set it apart from the machine's; in any other build that is not there.

use std::time::SystemTime;

#[cfg(debug_assertions)]
static AHEAD: std::sync::atomic::AtomicI64 = std::sync::atomic::AtomicI64::new(0);

/// What it says now.
#[cfg(not(debug_assertions))]
pub fn now() -> SystemTime {
    SystemTime::now()
}

/// What it says now.
#[cfg(debug_assertions)]
pub fn now() -> SystemTime {
    let ahead = AHEAD.load(std::sync::atomic::Ordering::Relaxed);
    let (by, now) = (std::time::Duration::from_secs(ahead.unsigned_abs()), SystemTime::now());
    // What no clock can say is not said.
    let set = if ahead < 0 { now.checked_sub(by) } else { now.checked_add(by) };
    set.unwrap_or(now)
}

/// Sets it, by seconds ahead of the machine's; returns by how many it was before.
#[cfg(debug_assertions)]
pub fn set_ahead(seconds: i64) -> i64 {
    AHEAD.swap(seconds, std::sync::atomic::Ordering::Relaxed)
}

#[cfg(all(test, debug_assertions))]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn it_can_be_set_and_set_back() {
        let hour = Duration::from_secs(3600);
        assert_eq!(set_ahead(3600), 0);
        assert!(now() > SystemTime::now() + hour / 2);
        assert_eq!(set_ahead(-3600), 3600);
        assert!(now() < SystemTime::now() - hour / 2);
        set_ahead(i64::MAX);
        assert!(now() >= SystemTime::now() - hour, "beyond what a clock can say");
        set_ahead(0);
        assert!(SystemTime::now().duration_since(now()).unwrap_or_default() < hour / 2);
    }
}
