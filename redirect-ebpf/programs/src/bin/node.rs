//! The programs of a node: attached once, to the root of the cgroup v2 hierarchy.
//!
//! They decide, when an application calls connect(2), whether the connection is captured, by setting the capture bits of
//! the socket's mark. The destination is not rewritten and no state is kept. What they cannot mark they refuse, and what
//! nobody would accept as well: an enrolled pod never reaches the network past the agent, and is told at once. Minimum
//! kernel: 5.18 (`bpf_get_netns_cookie` 5.7, `bpf_setsockopt` and socket-local storage in these programs 5.8,
//! `bpf_set_retval` 5.18).

#![no_std]
#![no_main]

use core::ffi::c_void;
use core::mem::size_of;

use abi::{CAPTURE_MARK, LOOPBACK_IFINDEX, MARK_MASK, MAX_PODS, PodAddress};
use aya_ebpf::btf_maps::{HashMap, SkStorage, SockHash};
use aya_ebpf::helpers::{
    bpf_get_netns_cookie, bpf_map_lookup_elem, bpf_set_retval, bpf_setsockopt, bpf_sk_release,
};
use aya_ebpf::macros::{btf_map, cgroup_sock_addr};
use aya_ebpf::programs::SockAddrContext;

const SOL_SOCKET: i32 = 1;
const SO_BINDTODEVICE: i32 = 25;
const SO_MARK: i32 = 36;
const SOCK_STREAM: u32 = 1;
const IPPROTO_TCP: u32 = 6;
const IPPROTO_MPTCP: u32 = 262;
/// `BPF_F_NO_PREALLOC`: memory for the pods there are, not for the most there can be.
const NO_PREALLOC: usize = 1;

#[btf_map]
static ENROLLED: HashMap<u64, u32, { MAX_PODS as usize }, NO_PREALLOC> = HashMap::new();

#[btf_map]
static EXEMPT: SkStorage<u32> = SkStorage::new();

#[btf_map]
static AGENTS: SockHash<u64, { MAX_PODS as usize }> = SockHash::new();

/// What becomes of a connect(2).
enum Action {
    /// None of ours.
    Leave,
    /// Goes to the agent.
    Capture,
    /// Cannot be captured, so it fails with this error.
    Refuse(i32),
}

/// The call fails, with this error.
struct Refused(i32);

const EPERM: i32 = 1;
const ECONNREFUSED: i32 = 111;

#[cgroup_sock_addr(connect4)]
pub fn connect4(ctx: SockAddrContext) -> i32 {
    // SAFETY: the kernel hands a valid bpf_sock_addr to the program; `user_ip4` may be read in connect4.
    let ip = unsafe { (*ctx.sock_addr).user_ip4 };
    verdict(&ctx, PodAddress::from_v4(ip))
}

#[cgroup_sock_addr(connect6)]
pub fn connect6(ctx: SockAddrContext) -> i32 {
    // SAFETY: as above; the four words of `user_ip6` may be read in connect6, one word at a time.
    let words = unsafe {
        let addr = &*ctx.sock_addr;
        [addr.user_ip6[0], addr.user_ip6[1], addr.user_ip6[2], addr.user_ip6[3]]
    };
    verdict(&ctx, PodAddress::from_v6(words))
}

/// 1 lets the call go on, 0 makes it fail.
#[inline(always)]
fn verdict(ctx: &SockAddrContext, destination: PodAddress) -> i32 {
    let done = match decide(ctx, destination) {
        Action::Leave => Ok(()),
        Action::Capture => capture(ctx),
        Action::Refuse(error) => Err(Refused(error)),
    };
    match done {
        Ok(()) => 1,
        Err(Refused(error)) => {
            // SAFETY: the helper takes a number and has no other precondition.
            unsafe { bpf_set_retval(-error) };
            0
        }
    }
}

#[inline(always)]
fn decide(ctx: &SockAddrContext, destination: PodAddress) -> Action {
    // SAFETY: `ctx` is the program's own context, which this helper takes.
    let cookie = unsafe { bpf_get_netns_cookie(ctx.sock_addr.cast::<c_void>()) };
    if ENROLLED.get_ptr(&cookie).is_none() || !is_tcp(ctx) || destination.is_loopback() {
        return Action::Leave;
    }
    // SAFETY: the pointer is only compared with null, never followed.
    if !unsafe { EXEMPT.get_ptr_mut(ctx) }.is_null() {
        return Action::Leave;
    }
    if destination.is_link_local_v6() {
        // Its scope binds the socket to a device after this program has run, and so past the route to the agent.
        return Action::Refuse(EPERM);
    }
    // The agent's sockets towards the application are bound to lo and marked already. Whoever else makes such a socket
    // gets no further than `steer`, which hands it to the agent unless it goes to the pod itself.
    let (mark, device) = socket(ctx);
    if mark & MARK_MASK == CAPTURE_MARK && device == LOOPBACK_IFINDEX {
        return Action::Leave;
    }
    // Without an agent the connection could only run into a slot without a listener. In IPv4 the kernel cannot answer that
    // with a reset, whose source would be an address that is not its own, and the application would wait for its time-out.
    if !has_agent(cookie) {
        return Action::Refuse(ECONNREFUSED);
    }
    Action::Capture
}

/// Whether an agent listens in this namespace.
#[inline(always)]
fn has_agent(cookie: u64) -> bool {
    // SAFETY: the map is one of this object's and the key is its type; a socket that is found is referenced, and the
    // reference is given back before it is forgotten.
    unsafe {
        let socket = bpf_map_lookup_elem(
            (&raw const AGENTS).cast_mut().cast::<c_void>(),
            (&raw const cookie).cast::<c_void>(),
        );
        if socket.is_null() {
            return false;
        }
        bpf_sk_release(socket);
        true
    }
}

#[inline(always)]
fn capture(ctx: &SockAddrContext) -> Result<(), Refused> {
    let (mark, device) = socket(ctx);
    if device != 0 {
        // A socket bound to a device (no privilege needed) would skip the route to the agent.
        let mut none = 0u32;
        set_option(ctx, SO_BINDTODEVICE, &mut none)?;
    }
    let mut marked = (mark & !MARK_MASK) | CAPTURE_MARK;
    set_option(ctx, SO_MARK, &mut marked)
}

#[inline(always)]
fn is_tcp(ctx: &SockAddrContext) -> bool {
    // SAFETY: the context is valid; both fields may be read in connect programs.
    let (kind, protocol) = unsafe { ((*ctx.sock_addr).type_, (*ctx.sock_addr).protocol) };
    kind == SOCK_STREAM && (protocol == IPPROTO_TCP || protocol == IPPROTO_MPTCP)
}

/// The mark and the bound device of the connecting socket.
#[inline(always)]
fn socket(ctx: &SockAddrContext) -> (u32, u32) {
    // SAFETY: `sk` of a sock_addr context is a valid socket in connect programs, and both fields may be read.
    unsafe {
        let sk = (*ctx.sock_addr).__bindgen_anon_1.sk;
        ((*sk).mark, (*sk).bound_dev_if)
    }
}

#[inline(always)]
fn set_option(ctx: &SockAddrContext, name: i32, value: &mut u32) -> Result<(), Refused> {
    let value: *mut u32 = value;
    // SAFETY: `ctx` is the program's own context; `value` points to four readable bytes on the program's stack.
    let done = unsafe {
        bpf_setsockopt(
            ctx.sock_addr.cast::<c_void>(),
            SOL_SOCKET,
            name,
            value.cast::<c_void>(),
            size_of::<u32>() as i32,
        )
    };
    if done == 0 { Ok(()) } else { Err(Refused(EPERM)) }
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
