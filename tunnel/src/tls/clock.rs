//! The time at which certificates and sessions are judged: that of [`linux::wall_clock`], in handshakes and beside them.

use std::time::UNIX_EPOCH;

use rustls::time_provider::TimeProvider;
use rustls_pki_types::UnixTime;

/// Tells handshakes the time.
#[derive(Debug)]
pub(super) struct WallClock;

impl TimeProvider for WallClock {
    fn current_time(&self) -> Option<UnixTime> {
        Some(now())
    }
}

/// What it is now.
pub(super) fn now() -> UnixTime {
    UnixTime::since_unix_epoch(linux::wall_clock::now().duration_since(UNIX_EPOCH).unwrap_or_default())
}
