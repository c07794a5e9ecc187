//! The locks and counters of what threads share: the standard library's.
//!
//! With the feature `schedules` they are those of a scheduler that runs the threads of a test one at a time, in an order of its own
//! choosing, and changes threads only at these; see `schedules.rs`. Nothing is held over an await.

#[cfg(not(feature = "schedules"))]
pub(crate) use std::sync::{Mutex, MutexGuard, atomic::AtomicU64};

#[cfg(feature = "schedules")]
pub(crate) use shuttle::sync::{Mutex, MutexGuard, atomic::AtomicU64};
