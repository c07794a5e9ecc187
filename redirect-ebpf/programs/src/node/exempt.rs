//! Which sockets are the agent's own, and so left alone.
//!
//! The agent is known by its process, which costs its connections nothing: it proves once who it is, with a socket that only a
//! holder of the map can have marked, and the program notes the process that connects it. A process id that is given to
//! somebody else after the agent died opens nothing: a pod without a listening agent is refused, and the agent that listens
//! next has itself noted before it does.

use core::ffi::c_void;

use abi::Exemption;
use aya_ebpf::helpers::{bpf_get_current_pid_tgid, bpf_sk_storage_get};
use aya_ebpf::programs::SockAddrContext;

use crate::maps::{AGENT, EXEMPT};

/// What is known of a socket by itself.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Exempt {
    /// It is left alone.
    Yes,
    /// It is not, whoever connects it.
    No,
    /// It depends on who connects it: ask [`is_agent`], if an agent listens.
    Unsaid,
}

/// What is known of the socket of this call.
#[inline(always)]
pub fn socket(ctx: &SockAddrContext) -> Exempt {
    let value = stored(ctx);
    if value == 0 {
        return Exempt::Unsaid;
    }
    if value == Exemption::Nobody as u32 {
        return Exempt::No;
    }
    if value == Exemption::Enlist as u32 {
        enlist();
    }
    Exempt::Yes
}

#[inline(always)]
fn stored(ctx: &SockAddrContext) -> u32 {
    // SAFETY: the map is one of this object's and `sk` of the context is a valid socket; the storage's value is one aligned
    // word, and nothing is created.
    unsafe {
        let sk = (*ctx.sock_addr).__bindgen_anon_1.sk;
        let map = (&raw const EXEMPT).cast_mut().cast::<c_void>();
        let value = bpf_sk_storage_get(map, sk.cast(), core::ptr::null_mut(), 0).cast::<u32>();
        if value.is_null() { 0 } else { *value }
    }
}

/// Whether the calling process is the agent.
#[inline(always)]
pub fn is_agent() -> bool {
    // SAFETY: the value is one aligned word that is replaced whole.
    AGENT.get_ptr(0).is_some_and(|agent| unsafe { *agent } == process())
}

#[inline(always)]
fn enlist() {
    if let Some(agent) = AGENT.get_ptr_mut(0) {
        // SAFETY: as above.
        unsafe { *agent = process() };
    }
}

/// The id of the calling process; never 0, which is the kernel's own.
#[inline(always)]
fn process() -> u32 {
    (bpf_get_current_pid_tgid() >> 32) as u32
}
