//! The wall clock, which may be set at any moment, forward and back: whoever waits by it has to look again from time to time.
//!
//! Tests have clocks of their own, and set those; nothing sets the machine's.

use std::time::SystemTime;

/// Tells the time.
#[derive(Clone, Debug, Default)]
pub(crate) struct Clock {
    /// By how many seconds it is ahead of the machine's.
    #[cfg(test)]
    ahead: std::sync::Arc<std::sync::atomic::AtomicI64>,
}

impl Clock {
    /// What it says now.
    #[cfg(not(test))]
    pub(crate) fn now(&self) -> SystemTime {
        linux::wall_clock::now()
    }

    /// What it says now.
    #[cfg(test)]
    pub(crate) fn now(&self) -> SystemTime {
        let ahead = self.ahead.load(std::sync::atomic::Ordering::SeqCst);
        let by = std::time::Duration::from_secs(ahead.unsigned_abs());
        let now = SystemTime::now();
        if ahead < 0 { now - by } else { now + by }
    }

    /// Sets it, by seconds ahead of the machine's.
    #[cfg(test)]
    pub(crate) fn set_ahead(&self, seconds: i64) {
        self.ahead.store(seconds, std::sync::atomic::Ordering::SeqCst);
    }
}
