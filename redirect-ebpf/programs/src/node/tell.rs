//! Tells the agent of decisions worth knowing, at a bounded rate.

use abi::{Decision, EVENTS_PER_SECOND, Event};
use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_ktime_get_ns};
use aya_ebpf::programs::SockAddrContext;

use crate::maps::{BUDGET, EVENTS};
use crate::{Address, socket};

/// What was told on one CPU in one second.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct Budget {
    second: u64,
    told: u64,
}

#[inline(always)]
pub fn tell(ctx: &SockAddrContext, cookie: u64, decision: Decision, destination: Address) {
    if matches!(decision, Decision::Loopback | Decision::Agent) || !may_tell() {
        return;
    }
    let process = (bpf_get_current_pid_tgid() >> 32) as u32;
    let event = Event::new(cookie, process, decision, destination, socket::port(ctx));
    // A ring that nobody reads, or reads too slowly, is full: what was decided stands all the same.
    let _ = EVENTS.output(event, 0);
}

#[inline(always)]
fn may_tell() -> bool {
    const NANOSECONDS: u64 = 1_000_000_000;
    let Some(budget) = BUDGET.get_ptr_mut(0) else { return false };
    // SAFETY: the helper has no precondition; the value is this CPU's own, and programs are not moved to another CPU.
    unsafe {
        let second = bpf_ktime_get_ns() / NANOSECONDS;
        if (*budget).second != second {
            *budget = Budget { second, told: 0 };
        }
        if (*budget).told >= EVENTS_PER_SECOND {
            return false;
        }
        (*budget).told += 1;
        true
    }
}
