//! Counts decisions a pod.

use abi::{Decision, DecisionKey};

use crate::maps::DECISIONS;

#[inline(always)]
pub fn add(cookie: u64, decision: Decision) {
    let key = DecisionKey::new(cookie, decision);
    match DECISIONS.get_ptr_mut(&key) {
        // SAFETY: the value is this CPU's own, and programs are not moved to another CPU while they run.
        Some(count) => unsafe { *count += 1 },
        // A full map loses counts, nothing else.
        None => {
            let _ = DECISIONS.insert(&key, &1, 0);
        }
    }
}
