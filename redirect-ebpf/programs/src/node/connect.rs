//! connect(2): is the connection captured, left alone, or refused?

use core::ffi::c_void;

use abi::{AddressKey, CAPTURE_MARK, Decision, MARK_MASK};
use aya_ebpf::helpers::{bpf_map_lookup_elem, bpf_set_retval, bpf_sk_release};
use aya_ebpf::programs::SockAddrContext;

use crate::exempt::{self, Exempt};
use crate::maps::{AGENTS, OWN};
use crate::socket::{Kind, Option};
use crate::{Address, count, dns, guard, probe, socket, tell};

const EPERM: i32 = 1;
const ECONNREFUSED: i32 = 111;

/// 1 lets the call go on, 0 makes it fail.
#[inline(always)]
pub fn decide<const V4: bool>(ctx: &SockAddrContext, destination: Address) -> i32 {
    let cookie = crate::cookie(ctx);
    let Some(row) = crate::row(cookie) else {
        probe::mark(ctx);
        return crate::ALLOW;
    };
    match socket::kind(ctx) {
        Kind::Tcp => {}
        Kind::Udp => {
            dns::steer::<V4>(ctx, cookie, destination);
            return crate::ALLOW;
        }
        Kind::Other => return crate::ALLOW,
    }
    let mut decision = judge(ctx, cookie, destination);
    if row.is_guarded() && !guard::note(ctx, decision) {
        decision = Decision::RefusedUnmarkable;
    }
    count::add(cookie, decision);
    tell::tell(ctx, cookie, decision, destination);
    let error = match decision {
        Decision::RefusedWithoutAgent => ECONNREFUSED,
        Decision::RefusedLinkLocal | Decision::RefusedUnmarkable => EPERM,
        _ => return crate::ALLOW,
    };
    // SAFETY: the helper takes a number and has no other precondition.
    unsafe { bpf_set_retval(-error) };
    0
}

#[inline(always)]
fn judge(ctx: &SockAddrContext, cookie: u64, destination: Address) -> Decision {
    if destination.is_loopback() || destination.is_unspecified() {
        return Decision::Loopback;
    }
    if OWN.get_ptr(&AddressKey::new(cookie, destination)).is_some() {
        return Decision::Loopback;
    }
    let exempt = exempt::socket(ctx);
    if exempt == Exempt::Yes {
        return Decision::Agent;
    }
    // Without an agent the connection could only run into a slot without a listener. In IPv4 the kernel cannot answer that
    // with a reset, whose source would be an address that is not its own, and the application would wait for its time-out.
    if !has_agent(cookie) {
        return Decision::RefusedWithoutAgent;
    }
    if exempt == Exempt::Unsaid && exempt::is_agent() {
        return Decision::Agent;
    }
    if destination.is_link_local_v6() {
        // Its scope binds the socket to a device after this program has run, and so past the route to the agent.
        return Decision::RefusedLinkLocal;
    }
    let (mark, device) = socket::mark_and_device(ctx);
    // A socket bound to a device (no privilege needed) would skip the route to the agent.
    if device != 0 && !socket::set(ctx, Option::BindToDevice, &mut 0) {
        return Decision::RefusedUnmarkable;
    }
    if !socket::set(ctx, Option::Mark, &mut ((mark & !MARK_MASK) | CAPTURE_MARK)) {
        return Decision::RefusedUnmarkable;
    }
    Decision::Captured
}

/// Whether an agent listens in this namespace.
#[inline(always)]
pub fn has_agent(cookie: u64) -> bool {
    // SAFETY: the map is one of this object's and the key is its type; a socket that is found is referenced, and the
    // reference is given back before it is forgotten.
    unsafe {
        let map = (&raw const AGENTS).cast_mut().cast::<c_void>();
        let found = bpf_map_lookup_elem(map, (&raw const cookie).cast::<c_void>());
        if found.is_null() {
            return false;
        }
        bpf_sk_release(found);
        true
    }
}
